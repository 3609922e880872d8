"""What the operating system does for a cache: locks of single bytes, and writing all that is to be written."""

from __future__ import annotations

import fcntl
import os
import struct


def lock(fd: int, kind: int, at: int) -> bool:
    """Lock or unlock one byte of a file; False if another process, or another opening of it in this one, holds it.

    A lock belongs to the opening (`F_OFD_SETLK`, fcntl(2)): it goes when the process is killed, and not when another
    descriptor of the same file is closed, as plain POSIX locks do.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi0q", kind, os.SEEK_SET, at, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def write_all(fd: int, data: bytes | memoryview, at: int) -> None:
    """A disk that fills up takes a part and refuses the rest."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, at)
        rest, at = rest[written:], at + written
