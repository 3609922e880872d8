"""Remote files kept on a disk of this machine, up to a number of bytes, for all processes of a host.

A file is kept as it was fetched, with a checksum behind it, under the hash of its address. It is written under another
name and renamed, so it is there as a whole or not at all; what a disk tore all the same (power lost, blocks gone) the
checksum tells, and it is fetched again. No process ever waits for another: keeping a file is a favor, and a process
that finds the count of bytes locked for long hands the file out without keeping it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from dist_loader.errors import ConfigError
from dist_loader.lock import took_lock
from dist_loader.remote.address import local_folder

_log = logging.getLogger(__name__)

_FOLDER = "dist_loader-files-1"  # in the given one: nothing beside it is ever touched
_TRAILER = struct.Struct("<4sI")  # a mark, and the CRC-32 of the content
_MARK = b"dlf1"
_COUNT = struct.Struct("<q")  # bytes kept: at least what is really there, for it is counted before it is written
_LOCK_SECONDS = 0.2
_PART = ".part"
_ROOM_MADE = 0.1  # share of the limit that is made free at once, because finding the oldest reads the whole folder
_LEFT_FREE = 0.02  # of the disk, and at least:
_LEFT_FREE_BYTES = 256 << 20


class LocalCopy:
    """Remote files, read from a folder of this machine where it has them.

    At the limit the files that were not used for longest go, but none that was used since this object was made: a
    training reads everything once an epoch, in another order each time, so what stays is worth more than what is
    exchanged. (With room for half of the files, a half is found when none is exchanged, a seventh when all are.) Once
    there is nothing to drop, or the disk is nearly full, no more files are kept.

    Files at an address are taken to stay what they are; empty the folder if they change.

    Args:
        folder: made if it is not there; may be shared by any number of processes of this host.
        limit: bytes that are kept at most.
        fetch: how a file is fetched, from its address to its content.

    Raises:
        ConfigError: the folder cannot be written to, or the limit is not above 0.
    """

    def __init__(self, folder: str | os.PathLike[str], limit: int, fetch: Callable[[str], bytes]) -> None:
        if limit < 1:
            raise ConfigError(f"a local copy of {limit} bytes keeps nothing; leave local_copy away")
        self._folder = local_folder("local_copy", folder).absolute() / _FOLDER
        self._limit = limit
        self._fetch = fetch
        self._keeps = True
        self._since = time.time()
        self._one_thread = threading.Lock()
        try:
            for number in range(256):
                (self._folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)
            (self._folder / "count").touch()
        except OSError as error:
            raise ConfigError(f"cannot keep files in local_copy={os.fspath(folder)!r}: {error.strerror}") from None

    def read(self, address: str) -> bytes:
        """The content of a file, from the folder or fetched.

        Raises:
            Exception: what `fetch` raises.
        """
        name = hashlib.blake2b(address.encode("utf-8", "surrogateescape"), digest_size=20).hexdigest()
        place = self._folder / name[:2] / name[2:]
        data = _kept(place)
        if data is None:
            data = self._fetch(address)
            if self._keeps:
                try:
                    self._keep(place, data)
                except OSError as error:
                    self._stop(error.strerror or str(error))
        return data

    def _keep(self, place: Path, data: bytes) -> None:
        size = len(data) + _TRAILER.size
        with self._count() as count:
            if count is None:
                return
            (used,) = _COUNT.unpack(os.pread(count, _COUNT.size, 0).ljust(_COUNT.size, b"\0"))
            if not used or used + size > self._limit:
                used = self._made_room(size)
            disk = shutil.disk_usage(self._folder)
            if used + size > self._limit:
                self._stop(f"the {used} of {self._limit} bytes are in use by this training")
            elif disk.free - size < max(_LEFT_FREE_BYTES, disk.total * _LEFT_FREE):
                self._stop(f"the disk has only {disk.free >> 20} MiB left")
            else:
                os.pwrite(count, _COUNT.pack(used + size), 0)  # first, so that it is never too low
                _write(place, data)
                return
            os.pwrite(count, _COUNT.pack(used), 0)

    @contextlib.contextmanager
    def _count(self) -> Iterator[int | None]:
        """The file with the count of bytes, open and locked; None if another process has it for too long."""
        deadline = time.monotonic() + _LOCK_SECONDS
        if not self._one_thread.acquire(timeout=_LOCK_SECONDS):
            yield None
            return
        try:
            file = os.open(self._folder / "count", os.O_RDWR | os.O_CLOEXEC)
            try:
                while not took_lock(file):
                    if time.monotonic() >= deadline:
                        yield None
                        return
                    time.sleep(0.002)
                yield file
            finally:
                os.close(file)
        finally:
            self._one_thread.release()

    def _made_room(self, size: int) -> int:
        """Bytes that are in use after the files used least recently were dropped, if that was needed."""
        used, old = 0, []
        for folder in (entry.path for entry in os.scandir(self._folder) if entry.is_dir()):
            for entry in os.scandir(folder):
                status = entry.stat()
                used += status.st_size
                if entry.name.endswith(_PART):  # of a process that was killed: who writes one holds the lock
                    old.append((0.0, status.st_size, entry.path))
                elif status.st_mtime < self._since:
                    old.append((status.st_mtime, status.st_size, entry.path))
        if used + size > self._limit:
            for _, freed, path in sorted(old):
                Path(path).unlink()
                used -= freed
                if used + size <= self._limit * (1 - _ROOM_MADE):
                    break
        return used

    def _stop(self, reason: str) -> None:
        if self._keeps:
            self._keeps = False
            _log.warning("no more files are kept in %s: %s; the rest is fetched each time", self._folder, reason)


def _kept(place: Path) -> bytes | None:
    """The content of a kept file, which is then marked as used; None if there is none, or a damaged one."""
    try:
        with open(place, "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs more than the opening)
            held = file.read()
            os.utime(file.fileno())
    except OSError:
        return None
    data, trailer = held[: -_TRAILER.size], held[-_TRAILER.size :]
    return data if trailer == _TRAILER.pack(_MARK, zlib.crc32(data)) else None


def _write(place: Path, data: bytes) -> None:
    part = place.with_name(place.name + _PART)
    try:
        part.write_bytes(data + _TRAILER.pack(_MARK, zlib.crc32(data)))
        part.replace(place)
    except OSError:
        part.unlink(missing_ok=True)
        raise
