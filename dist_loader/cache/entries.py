"""Decoded samples in a file that the threads and processes of a host share, and that no kill can spoil.

A header, then a slot for every sample, of one length: 64 bytes that begin with the word, the pixels, 64 bytes that
begin with the word again. The file is sparse: a slot takes disk space once it is written. A word is 36 bytes: what
state the source was in when the sample was read from it (24 bytes), the CRC-32 of the pixels, and 8 bytes that no two
writes have in common (a slow reader must not take the end of one write for that of another); zeros: no entry.

An entry counts if both words are the same. Its writer sets the second one to zero, then writes the pixels and the
second word, then the first. So whoever reads from the front to the back while an entry is exchanged, and whoever comes
after a writer that was killed at any point, finds two different words. Only a crash of the host can lose the middle of
an entry whose words are on disk: that is what the checksum is for.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
import threading
import weakref
import zlib
from pathlib import Path

from dist_loader.cache.files import lock, write_all
from dist_loader.cache.folder import open_file
from dist_loader.cache.layout import HEADER, MARGIN, Contents

STATE_BYTES = 24
FREE_SHARE = 0.05  # of a disk is left free, whatever the cache may take

_CHECKED = STATE_BYTES + 4
_WORD = _CHECKED + 8
_EMPTY = bytes(_WORD)
_BLOCK = 4096  # bytes; a file system tells holes from data by blocks
_log = logging.getLogger("dist_loader")


class Cache:
    """The decoded samples of one set of contents, in a folder. Any number of threads and processes may use it at once.

    What cannot be written is not an error: the first failure, or a disk that is as full as it may get, turns writing
    off in this process, with one warning.

    Args:
        folder: where to; made if it is not there. It is best on a disk of this host.
        contents: what it holds.
        limit: bytes that all caches in the folder take at most, together; None: as many as the disk has to spare. If
            this one needs more than is left, others that nobody uses are deleted, the one used longest ago first.
            What then does not fit is not kept: samples from some number on.

    Raises:
        ConfigError: the folder cannot be used, or the limit leaves no room for a single sample.
    """

    def __init__(self, folder: str | os.PathLike[str], contents: Contents, limit: int | None = None) -> None:
        self.folder = Path(folder)
        self.contents = contents
        self._fd, self.held = open_file(self.folder, contents, limit)
        # Not at the end of the program: threads may still read then, and the number may be another file's already.
        weakref.finalize(self, os.close, self._fd).atexit = False
        self._gap, self._rest = bytearray(MARGIN - _WORD), bytearray(contents.slot - 2 * MARGIN - contents.sample_bytes)
        self._length = contents.slot - MARGIN + _WORD
        self._writes = True
        self._written_now: set[int] = set()
        self._mutex = threading.Lock()
        self._known = bytearray(contents.samples // 8 + 1)  # a bit for each entry

    @property
    def path(self) -> Path:
        """Where the entries are."""
        return self.folder / self.contents.name

    def knows(self, number: int) -> bool:
        """Whether this object has written the entry of a sample, or found it whole and of its source's state."""
        return bool(self._known[number >> 3] >> (number & 7) & 1)

    def read(self, number: int, state: bytes | None, out: memoryview) -> bool:
        """Read an entry into given memory; False if there is none of this state (the memory may be written to then).

        Args:
            number: of the sample.
            state: of its source, `STATE_BYTES` bytes; None for an entry that this object knows, of whatever state.
            out: where to, the bytes of one sample.
        """
        at = HEADER + number * self.contents.slot
        if number >= self.held or (state is not None and self._is_hole(at)):
            return False
        before, behind = bytearray(_WORD), bytearray(_WORD)
        parts: list[bytearray | memoryview] = [before, self._gap, out, self._rest, behind]
        try:
            got = os.preadv(self._fd, parts, at)
        except OSError:  # a faulty disk: the source is as good
            return False
        if before != behind or before == _EMPTY or got < self._length:
            return False
        if state is not None:
            if not before.startswith(state) or before[STATE_BYTES:_CHECKED] != _checksum(out):
                return False
            self._know(number)
        return True

    def _is_hole(self, at: int) -> bool:
        """Whether nothing was ever written to a slot, as far as the file system can tell.

        To read it would fill the page cache with zeros, in small pieces that make every later reading slower.
        """
        first, last = -(-at // _BLOCK) * _BLOCK, (at + self.contents.slot) // _BLOCK * _BLOCK
        if first >= last:
            return False
        try:
            return os.lseek(self._fd, first, os.SEEK_DATA) >= last
        except OSError as error:
            return error.errno == errno.ENXIO  # nothing from there on

    def write(self, number: int, state: bytes, pixels: memoryview) -> None:
        """Keep a sample, unless it has no place, another thread or process writes it now, or writing is off."""
        if number >= self.held or not self._writes or not self._has_room():
            return
        with self._mutex:
            if number in self._written_now:
                return
            self._written_now.add(number)
        at = HEADER + number * self.contents.slot
        try:
            if lock(self._fd, fcntl.F_WRLCK, at):
                try:
                    self._write_entry(at, state + _checksum(pixels) + os.urandom(_WORD - _CHECKED), pixels)
                finally:
                    lock(self._fd, fcntl.F_UNLCK, at)
                self._know(number)
        except OSError as error:
            self._stop_writing(error.strerror or str(error))
        finally:
            self._written_now.discard(number)

    def _write_entry(self, at: int, word: bytes, pixels: memoryview) -> None:
        last = at + self.contents.slot - MARGIN
        write_all(self._fd, _EMPTY, last)
        write_all(self._fd, pixels, at + MARGIN)
        write_all(self._fd, word, last)
        write_all(self._fd, word, at)

    def _know(self, number: int) -> None:
        self._known[number >> 3] |= 1 << (number & 7)  # two threads at once may lose a bit: it is checked once more

    def _has_room(self) -> bool:
        try:
            disk = os.fstatvfs(self._fd)
        except OSError as error:
            self._stop_writing(error.strerror or str(error))
            return False
        if disk.f_bavail * disk.f_frsize - self.contents.slot >= FREE_SHARE * disk.f_blocks * disk.f_frsize:
            return True
        self._stop_writing(f"less than {FREE_SHARE:.0%} of the disk is free")
        return False

    def _stop_writing(self, reason: str) -> None:
        with self._mutex:
            first, self._writes = self._writes, False
        if first:
            _log.warning(
                "cache %s: %s; no more samples are kept, and those that are not there are decoded in every epoch. "
                "Make room, delete old files in the folder, or set cache_bytes",
                self.path,
                reason,
            )


def _checksum(pixels: memoryview) -> bytes:
    return struct.pack("<I", zlib.crc32(pixels))
