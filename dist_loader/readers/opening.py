"""Files of this machine, opened so that nothing that is no file can hold the reader up."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from typing import TypeVar

Content = TypeVar("Content")

MOST_BYTES = 1 << 30  # of one file: an image of twice Pillow's limit takes about half as much without any compression

# A network file system answers so while a server comes back (ESTALE: also for a file that was replaced; it is opened
# anew), a local disk now and then while a bad block is read.
_PASSING = (errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EREMOTEIO)
_PAUSES = (0.05, 0.2)  # seconds before the second and third try

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def opened(path: str) -> int:
    """The descriptor of a file, open for reading, whatever it is; see `checked_size`.

    Raises:
        OSError: it cannot be opened.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for ever, and so may that of a device.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "not a regular file: a socket or a device") from None
        raise


def checked_size(fd: int) -> int:
    """The size of an open file, in bytes.

    Raises:
        OSError: it is no file, or too large.
    """
    status = os.fstat(fd)
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise OSError(errno.EINVAL, f"not a regular file: {kind}")
    if status.st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes, more than the {MOST_BYTES} that are read of one file")
    return status.st_size


def checked_length(length: int) -> None:
    """Of what was read of a file that grows, or has no size.

    Raises:
        OSError: it is too large.
    """
    if length > MOST_BYTES:
        raise OSError(errno.EFBIG, f"more than the {MOST_BYTES} bytes that are read of one file")


def with_retries(read: Callable[[str], Content], path: str) -> Content:
    """What `read` returns, tried again twice if a disk or a network file system fails in a way that may pass.

    Raises:
        OSError: it failed all the same.
    """
    for pause in _PAUSES:
        try:
            return read(path)
        except OSError as error:
            if error.errno not in _PASSING:
                raise
        time.sleep(pause)
    try:
        return read(path)
    except OSError as error:
        if error.errno in _PASSING and error.strerror:
            raise OSError(error.errno, f"{error.strerror} ({len(_PAUSES) + 1} tries)") from error
        raise
