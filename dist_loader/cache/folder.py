"""A cache's file in a folder of several: found or made, and kept to a number of bytes."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING

from dist_loader.cache.files import lock, write_all
from dist_loader.cache.layout import HEADER, SUFFIX, Contents, is_name
from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOCK_SECONDS = 60.0
_BOOKKEEPING = 256  # the part of a file's size that a file system may take besides, to know where its blocks are
_log = logging.getLogger("dist_loader")


def open_file(folder: Path, contents: Contents, limit: int | None) -> tuple[int, int]:
    """The descriptor of a cache's file, made if it has to be, and how many entries it may hold."""
    path = folder / contents.name
    wanted = HEADER + contents.samples * contents.slot
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            size = wanted if limit is None else min(wanted, _make_room(path, contents, wanted, limit))
            fits = max(0, (size - HEADER) // contents.slot)
            fd = _made(path, contents)
            try:
                held = _prepare(fd, contents, fits)
            except BaseException:
                os.close(fd)
                raise
    except OSError as error:
        raise ConfigError(
            f"cannot use the cache folder {str(folder)!r}: {error.strerror or error}; choose a folder on a disk of "
            f"this host that can be written to"
        ) from error
    if held < contents.samples:
        _log.warning(
            "cache %s: %s has room for %d of %d samples; the others are decoded in every epoch",
            path,
            "cache_bytes" if held == fits else "the file system",
            held,
            contents.samples,
        )
    return fd, held


def _prepare(fd: int, contents: Contents, held: int) -> int:
    """How many entries there is room for, at most those asked for: file systems have a longest file, users a limit."""
    lock(fd, fcntl.F_RDLCK, 0)  # in use, for as long as it is open
    while True:
        length = HEADER + held * contents.slot
        try:
            if os.fstat(fd).st_size != length:
                os.truncate(fd, length)
            break
        except OSError as error:
            if error.errno != errno.EFBIG or not held:
                raise
            held = held * 15 // 16
    os.utime(fd)  # used last
    return held


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process opens a cache in this folder meanwhile."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not lock(fd, fcntl.F_WRLCK, 0):
            if time.monotonic() > deadline:
                raise ConfigError(f"another process has held {str(folder / 'lock')!r} for {_LOCK_SECONDS:g} s; end it")
            time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def _made(path: Path, contents: Contents) -> int:
    """The descriptor of a file with the right header. What has another one, by damage, is replaced as a whole."""
    with suppress(FileNotFoundError):
        if not S_ISREG(path.stat().st_mode):
            raise ConfigError(f"cannot use the cache folder {str(path.parent)!r}: {path.name} is no file; remove it")
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.pread(fd, HEADER, 0) == contents.header:
            return fd
        os.close(fd)
        _log.warning("cache %s: the file is damaged; it is made anew", path)
    part = path.with_suffix(".new")
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        write_all(fd, contents.header, 0)
        part.replace(path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make_room(own: Path, contents: Contents, wanted: int, limit: int) -> int:
    """How long this cache's file may get; others are deleted for it if nobody has them open.

    The lengths of the files count, though they are sparse: others may still fill theirs.
    """
    given, limit = limit, limit - limit // _BOOKKEEPING
    if limit < HEADER + contents.slot:
        raise ConfigError(
            f"cache_bytes {given} is too small: one sample takes {contents.slot} bytes, and the header {HEADER}"
        )
    others = {path: path.stat() for path in own.parent.glob("*" + SUFFIX) if is_name(path.name) and path != own}
    taken = sum(stat.st_size for stat in others.values())
    for path in sorted(others, key=lambda path: others[path].st_mtime_ns):
        if limit - taken >= wanted:
            break
        if _deleted(path):
            taken -= others[path].st_size
    return limit - taken


def _deleted(path: Path) -> bool:
    """Delete a cache's file, unless somebody has it open."""
    if path.is_symlink() or not path.is_file():
        return False
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if not lock(fd, fcntl.F_WRLCK, 0):
            return False
        path.unlink()
        _log.info("cache %s: deleted, to keep to cache_bytes", path)
        return True
    finally:
        os.close(fd)
