"""Finds the images below a folder of class folders, in an order that depends on their names only.

Everything here is bytes: a file name on Linux need not be text.
"""

# ruff: noqa: PTH116, PTH118 (pathlib does not take bytes)

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

LAYOUT = "expected ROOT/<class>/<image>"


def class_folders(root: bytes, suffixes: Collection[str] = IMAGE_SUFFIXES) -> list[bytes]:
    """Names of the class folders: every directory in root, or link to one, that is not hidden.

    Args:
        root: the folder that holds the class folders.
        suffixes: what an image's name ends with; only used to word an error.

    Returns:
        Names in byte order; never empty.

    Raises:
        ConfigError: root is missing, not a folder, not readable, or holds no folder.
    """
    endings = _encoded(suffixes)
    try:
        names = _listing(root, endings)
    except FileNotFoundError:
        raise ConfigError(f"image folder {shown(root)} does not exist; {LAYOUT}") from None
    except NotADirectoryError:
        raise ConfigError(f"{shown(root)} is a file, not a folder of images; {LAYOUT}") from None
    except OSError as error:
        raise _unreadable(root, error) from None
    here = _identity(root)
    folders = [name[:-1] for name in names if name.endswith(b"/") and _identity(os.path.join(root, name)) != here]
    if not folders:
        stray = sum(not name.endswith(b"/") for name in names)
        found = f"{stray} images directly in it" if stray else "nothing to read in it"
        raise ConfigError(f"image folder {shown(root)} has no class folders and {found}; {LAYOUT}")
    return sorted(folders)


def image_files(root: bytes, folder: bytes, suffixes: Collection[str] = IMAGE_SUFFIXES) -> Iterator[bytes]:
    """Paths of the images anywhere below root/folder, relative to root, in byte order.

    Hidden files and folders (leading dot) and files with another suffix are passed over. Links are followed, but a
    directory is never entered from inside of itself, so links in a circle end. A file that is reachable by two paths
    is two samples. Whatever has an image's suffix and is not a directory counts, dangling links included: it fails by
    name when it is read, instead of going missing here.

    Args:
        root: the folder that holds the class folders.
        folder: name of one class folder.
        suffixes: what an image's name ends with, case ignored.

    Raises:
        ConfigError: a folder cannot be read.
    """
    endings = _encoded(suffixes)
    top = _identity(root)
    # The directories from the class folder down to where we are. An explicit stack, because folders may be nested
    # deeper than Python recurses.
    levels = [_Level.open(root, folder + b"/", endings)]
    while levels:
        level = levels[-1]
        name = next(level.names, None)
        if name is None:
            levels.pop()
        elif not name.endswith(b"/"):
            yield level.path + name
        else:
            below = _Level.open(root, level.path + name, endings)
            if below.identity != top and all(below.identity != higher.identity for higher in levels):
                levels.append(below)


@dataclass(frozen=True)
class _Level:
    """A directory on the way down: path relative to root with a slash at its end, and the names still to visit."""

    path: bytes
    identity: tuple[int, int]
    names: Iterator[bytes]

    @classmethod
    def open(cls, root: bytes, path: bytes, endings: tuple[bytes, ...]) -> _Level:
        full = os.path.join(root, path)
        identity = _identity(full)
        try:
            return cls(path, identity, iter(_listing(full, endings)))
        except OSError as error:
            raise _unreadable(full, error) from None


def _listing(directory: bytes, endings: tuple[bytes, ...]) -> list[bytes]:
    """Visible directories, with a slash at the end of their names, and images of one directory, in byte order.

    With the slash, names sort as the full paths below them do ("a-b.png" before "a/x.png" before "a0.png").
    """
    names = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            is_image = entry.name.lower().endswith(endings)
            if _is_directory(entry, is_image=is_image):
                names.append(entry.name + b"/")
            elif is_image:
                names.append(entry.name)
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
        raise _unreadable(entry.path, error) from None


def _identity(directory: bytes) -> tuple[int, int]:
    """What tells a directory apart from all others, whichever path leads to it."""
    try:
        status = os.stat(directory)
    except OSError as error:
        raise _unreadable(directory, error) from None
    return status.st_dev, status.st_ino


def shown(path: bytes) -> str:
    """A path for a message: quoted, on one line, and printable even if it is not text."""
    return repr(os.fsdecode(path))


def _encoded(suffixes: Collection[str]) -> tuple[bytes, ...]:
    if isinstance(suffixes, str) or not suffixes:
        raise ConfigError(f'suffixes must be a list like [".jpg", ".png"], got {suffixes!r}')
    return tuple(os.fsencode("." + suffix.lower().lstrip(".")) for suffix in suffixes)


def _unreadable(path: bytes, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot read folder {shown(path)}: {error.strerror}; let this user read and enter it, or move it away"
    )
