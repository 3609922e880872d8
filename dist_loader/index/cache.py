"""A file that one process of a host makes and all others open.

The lock is the kernel's (`flock`): it is gone with the process that held it, however that ended.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dist_loader.errors import ConfigError, ReadTimeout
from dist_loader.index.file import UNFINISHED, VERSION
from dist_loader.lock import took_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dist_loader.index.progress import Progress

Found = TypeVar("Found")

_SECONDS_WITHOUT_A_WORD = 600.0
_SECONDS_BETWEEN_WORDS = 1.0
_SECONDS_BETWEEN_TRIES = 0.1
_SECONDS_UNTIL_LEFT_BEHIND = 3600.0

_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def cached(
    file: Path,
    opened: Callable[[bool], Found | None],
    make: Callable[[Callable[[str], None]], Found],
    progress: Progress,
) -> Found:
    """What a file holds; if that is not current, one process makes the file again, and the others wait for it.

    Args:
        file: the file.
        opened: opens it, or returns None. It is given True where another process made the file just now, and
            what was true a moment ago will do.
        make: makes and opens the file, or raises. It calls what it is given from time to time with how far it is.
        progress: of the making, here or in another process.

    Raises:
        ConfigError: the folder cannot be written.
        ReadTimeout: the process that makes the file has not come any further for ten minutes.
    """
    before = _identity(file)
    found = opened(False)
    if found is not None:
        return found
    with _only_one(file, progress) as say:
        made_meanwhile = _identity(file) != before
        found = opened(True) if made_meanwhile else None
        if found is not None:
            return found
        _remove_leftovers(file)
        return make(say)


def name_for(title: str, key: Mapping[str, Any], kind: str = "all") -> str:
    """A file's name: something of its title for people, and a digest of all that makes it what it is."""
    text = json.dumps({**key, "version": VERSION}, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]', '_', title)[:40]}-{digest}.{kind}.index"


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _remove_leftovers(file: Path) -> None:
    """Remove what processes that were killed had half written; not what is being written, where there are no locks."""
    for part in file.parent.glob(f".{file.name}.*{UNFINISHED}"):
        with contextlib.suppress(OSError):
            if part.stat().st_mtime < time.time() - _SECONDS_UNTIL_LEFT_BEHIND:
                part.unlink()


@contextlib.contextmanager
def _only_one(file: Path, progress: Progress) -> Iterator[Callable[[str], None]]:
    """Waits until no other process makes the file; gives what tells those who wait how far this one is."""
    lock = file.with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise ConfigError(
            f"cannot write to index cache {str(file.parent)!r}: {error.strerror}; name a folder that can be written, "
            f"or no cache"
        ) from error
    try:
        _wait_for(handle, file, progress)
        next_word = 0.0

        def say(text: str) -> None:
            nonlocal next_word
            progress.say(text)
            if time.monotonic() >= next_word:
                next_word = time.monotonic() + _SECONDS_BETWEEN_WORDS
                with contextlib.suppress(OSError):  # a full disk is told of by who writes the file
                    os.pwrite(handle, f"{text} ({time.time():.0f})".ljust(200).encode(errors="replace"), 0)

        yield say
    finally:
        os.close(handle)  # and with it, the lock
        progress.end()


def _wait_for(handle: int, file: Path, progress: Progress) -> None:
    """Takes the lock; where the file system has none, each process works for itself."""
    heard, deadline = None, 0.0
    while True:
        try:
            if took_lock(handle):
                return
        except OSError as error:
            if error.errno in _NO_LOCKS_HERE:
                return
            raise
        word = os.pread(handle, 1000, 0)
        if word != heard:
            heard, deadline = word, time.monotonic() + _SECONDS_WITHOUT_A_WORD
        elif time.monotonic() > deadline:
            raise ReadTimeout(
                f"waited {_SECONDS_WITHOUT_A_WORD:g} s for another process that makes {str(file)!r} and has come no "
                f"further: end it, or name another cache folder"
            )
        progress.say(heard.decode(errors="replace").rpartition(" (")[0] or f"waiting for {file}")
        time.sleep(_SECONDS_BETWEEN_TRIES)
