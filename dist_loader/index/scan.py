"""Finds the images below a folder of class folders, in an order that depends on their names only.

Several threads list folders ahead of the one that goes through them in order: on a network file system nearly all of
the time is waiting. What they bring is flat bytes, never a Python object for each path of the whole set. Everything
here is bytes: a file name on Linux need not be text.
"""

# ruff: noqa: PTH116, PTH118 (pathlib does not take bytes)

from __future__ import annotations

import errno
import heapq
import os
import threading
import time
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from dist_loader.errors import ConfigError, ReadTimeout
from dist_loader.index.stamps import Directory, stamp_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

LAYOUT = "expected ROOT/<class>/<image>"

_SECONDS_WITHOUT_ANSWER = 300.0
_SECONDS_TO_LEAVE = 5.0
_NAMES_BETWEEN_SIGNS_OF_LIFE = 1 << 12


@dataclass(frozen=True)
class Files:
    """Images that follow each other: paths one after the other, relative to the root, and the length of each."""

    folder: int  # position of the class folder in what was asked for
    paths: bytes
    lengths: NDArray[np.int32]


def class_folders(root: bytes, suffixes: Collection[str] = IMAGE_SUFFIXES) -> tuple[list[bytes], list[Directory]]:
    """Names of the class folders: every directory in root, or link to one, that is not hidden.

    Args:
        root: the folder that holds the class folders.
        suffixes: what an image's name ends with; only used to word an error.

    Returns:
        Names in byte order, never empty; and the directories that were looked at and that no `Walk` will enter.

    Raises:
        ConfigError: root is missing, not a folder, not readable, or holds no folder.
    """
    of_images = encoded(suffixes)
    try:
        status = os.stat(root)
        names = _listing(root, of_images)
    except FileNotFoundError:
        raise ConfigError(f"image folder {shown(root)} does not exist; {LAYOUT}") from None
    except NotADirectoryError:
        raise ConfigError(f"{shown(root)} is a file, not a folder of images; {LAYOUT}") from None
    except OSError as error:
        raise unreadable(root, error) from None
    seen, folders = [Directory(b"", stamp_of(status))], []
    for name in sorted(name for name in names if name.endswith(b"/")):
        below = _status(os.path.join(root, name))
        if identity_of(below) == identity_of(status):
            seen.append(Directory(name, stamp_of(below)))
        else:
            folders.append(name[:-1])
    if not folders:
        stray = sum(not name.endswith(b"/") for name in names)
        found = f"{stray} images directly in it" if stray else "nothing to read in it"
        raise ConfigError(f"image folder {shown(root)} has no class folders and {found}; {LAYOUT}")
    return sorted(folders), seen


class Walk:
    """The images anywhere below some class folders, folder by folder and within each in byte order of the path.

    Hidden files and folders (leading dot) and files with another suffix are passed over. Links are followed, but a
    directory is never entered from inside of itself, so links in a circle end. A file that is reachable by two paths
    is two samples. Whatever has an image's suffix and is not a directory counts, dangling links included: it fails by
    name when it is read, instead of going missing here.

    Args:
        root: the folder that holds the class folders.
        folders: names of class folders, in the order in which they are wanted.
        suffixes: what an image's name ends with, case ignored.
        threads: how many directories are listed at the same time.

    Attributes:
        names: how many were seen so far, of files and directories, in whatever order.
    """

    def __init__(self, root: bytes, folders: Sequence[bytes], suffixes: Collection[str], threads: int) -> None:
        self._root = root
        self._endings = encoded(suffixes)
        self._top = identity_of(_status(root))
        self._wanted = [_Folder(number, folder + b"/", None) for number, folder in enumerate(folders)]
        self._unlisted = list(self._wanted)
        heapq.heapify(self._unlisted)
        lock = threading.Lock()
        self._work, self._listed = threading.Condition(lock), threading.Condition(lock)
        self._over = False
        self._signs_of_life = 0
        self._threads = max(1, threads)
        self.names = 0

    def __iter__(self) -> Iterator[Files | Directory | None]:
        """Images and directories, in order; and None from time to time, while the next of them is not listed yet.

        Raises:
            ConfigError: a folder cannot be read: of several, the first one in order, whatever was listed before.
            ReadTimeout: the file system has stopped to answer.
        """
        names = [f"dist_loader-scan-{number}" for number in range(self._threads)]
        threads = [threading.Thread(target=self._list_folders, name=name, daemon=True) for name in names]
        for thread in threads:
            thread.start()
        try:
            # An explicit stack, because folders may be nested deeper than Python recurses.
            stack: list[Iterator[Files | _Folder]] = [iter(self._wanted)]
            while stack:
                part = next(stack[-1], None)
                if part is None:
                    stack.pop()
                elif isinstance(part, Files):
                    yield part
                else:
                    yield from self._wait_for(part)
                    if part.directory is not None:
                        yield part.directory
                    if part.error is not None:
                        raise part.error
                    stack.append(iter(part.parts))
                    part.parts = []
        finally:
            with self._work:
                self._over = True
                self._work.notify_all()
        for thread in threads:  # not after an error: one of them may be the one that never comes back
            thread.join(_SECONDS_TO_LEAVE)

    def _wait_for(self, folder: _Folder) -> Iterator[None]:
        seen, deadline = -1, 0.0
        while True:
            with self._listed:
                if not folder.listed:
                    self._listed.wait(0.5)
                if folder.listed:
                    return
            if self._signs_of_life != seen:
                seen, deadline = self._signs_of_life, time.monotonic() + _SECONDS_WITHOUT_ANSWER
            elif time.monotonic() > deadline:
                raise ReadTimeout(
                    f"no answer from the file system for {_SECONDS_WITHOUT_ANSWER:g} s while listing "
                    f"{shown(os.path.join(self._root, folder.path))}: check its disk or network"
                )
            yield None

    def _list_folders(self) -> None:
        while True:
            with self._work:
                while not self._unlisted and not self._over:
                    self._work.wait()
                if self._over:
                    return
                folder = heapq.heappop(self._unlisted)  # the one that is wanted first
            try:
                self._list(folder)
            except OSError as error:
                folder.error = unreadable(os.path.join(self._root, folder.path), error)
            except Exception as error:  # noqa: BLE001 (for the one who waits for it)
                folder.error = error
            below = [part for part in folder.parts if isinstance(part, _Folder)]
            with self._work:
                folder.listed = True
                self._signs_of_life += 1
                for part in below:
                    heapq.heappush(self._unlisted, part)
                self._work.notify(len(below))
                self._listed.notify()

    def _list(self, folder: _Folder) -> None:
        def seen_above(identity: tuple[int, int]) -> bool:
            folder.identity = identity
            return identity == self._top or any(identity == higher.identity for higher in folder.above())

        folder.directory, parts = contents(
            self._root, folder.number, folder.path, self._endings, seen_above, self._tell
        )
        folder.parts = [part if isinstance(part, Files) else _Folder(folder.number, part, folder) for part in parts]

    def _tell(self, names: int) -> None:
        self._signs_of_life += 1  # one lost between two threads does not matter
        self.names += names


class _Folder:
    """A directory that is to be listed, and what was found in it."""

    def __init__(self, number: int, path: bytes, parent: _Folder | None) -> None:
        self.number = number
        self.path = path
        self.parent = parent
        self.identity: tuple[int, int] | None = None
        self.listed = False
        self.directory: Directory | None = None
        self.parts: Sequence[Files | _Folder] = []
        self.error: Exception | None = None

    def __lt__(self, other: _Folder) -> bool:
        # Directories end in a slash, so the bytes of their paths are in the order in which they are gone through.
        return (self.number, self.path) < (other.number, other.path)

    def above(self) -> Iterator[_Folder]:
        """The directories from here up to the class folder."""
        folder = self.parent
        while folder is not None:
            yield folder
            folder = folder.parent


def contents(
    root: bytes,
    number: int,
    path: bytes,
    endings: tuple[bytes, ...],
    seen_above: Callable[[tuple[int, int]], bool],
    tell: Callable[[int], None],
) -> tuple[Directory, list[Files | bytes]]:
    """One directory: its images, and the paths of the directories in it, in order.

    Args:
        root: what paths are relative to.
        number: of its class folder.
        path: with a slash at the end.
        endings: of images' names, as `encoded` gives them.
        seen_above: whether a directory (device and inode) is one of those that this one is in; then it is not entered.
        tell: called from time to time with how many more names were seen.

    Raises:
        OSError: it cannot be read.
        ConfigError: a link in it cannot be followed.
    """
    full = os.path.join(root, path)
    status = os.stat(full)
    directory = Directory(path, stamp_of(status))
    if seen_above(identity_of(status)):
        return directory, []
    parts: list[Files | bytes] = []
    for is_folder, names in groupby(_listing(full, endings, tell), key=lambda name: name[-1:] == b"/"):
        if is_folder:
            parts += (path + name for name in names)
            continue
        group = list(names)
        lengths = np.fromiter(map(len, group), np.int32, len(group)) + np.int32(len(path))
        parts.append(Files(number, path + path.join(group), lengths))
    return directory, parts


def _listing(directory: bytes, endings: tuple[bytes, ...], tell: Callable[[int], None] = lambda _: None) -> list[bytes]:
    """Visible directories, with a slash at the end of their names, and images of one directory, in byte order.

    With the slash, names sort as the full paths below them do ("a-b.png" before "a/x.png" before "a0.png").
    """
    names, count = [], 0
    with os.scandir(directory) as entries:
        for count, entry in enumerate(entries, 1):
            if not count % _NAMES_BETWEEN_SIGNS_OF_LIFE:
                tell(_NAMES_BETWEEN_SIGNS_OF_LIFE)
            name = entry.name
            if name.startswith(b"."):
                continue
            is_image = name.lower().endswith(endings)
            if _is_directory(entry, is_image=is_image):
                names.append(name + b"/")
            elif is_image:
                names.append(name)
    tell(count % _NAMES_BETWEEN_SIGNS_OF_LIFE)
    names.sort()
    return names


def _is_directory(entry: os.DirEntry[bytes], *, is_image: bool) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        # A link that cannot be followed. One named like an image is left to fail by name when it is read, and one
        # that points at itself leads nowhere; any other may hide a folder of samples, which must not go missing.
        if is_image or error.errno == errno.ELOOP:
            return False
        raise unreadable(entry.path, error) from None


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """What tells a directory apart from all others, whichever path leads to it."""
    return status.st_dev, status.st_ino


def _status(directory: bytes) -> os.stat_result:
    try:
        return os.stat(directory)
    except OSError as error:
        raise unreadable(directory, error) from None


def shown(path: bytes) -> str:
    """A path for a message: quoted, on one line, and printable even if it is not text."""
    return repr(os.fsdecode(path))


def endings(suffixes: Collection[str]) -> list[str]:
    """Suffixes as they are compared: lower case, with a dot, each once and in order."""
    if isinstance(suffixes, str) or not suffixes:
        raise ConfigError(f'suffixes must be a list like [".jpg", ".png"], got {suffixes!r}')
    return sorted({"." + suffix.lower().lstrip(".") for suffix in suffixes})


def encoded(suffixes: Collection[str]) -> tuple[bytes, ...]:
    """Suffixes as they are compared, as bytes."""
    return tuple(map(os.fsencode, endings(suffixes)))


def unreadable(path: bytes, error: OSError) -> ConfigError:
    """The error of a folder that cannot be read."""
    return ConfigError(
        f"cannot read folder {shown(path)}: {error.strerror}; let this user read and enter it, or move it away"
    )
