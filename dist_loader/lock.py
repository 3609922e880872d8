"""The lock of an open file or folder, for processes of any number: it is gone with the one that holds it."""

from __future__ import annotations

import fcntl


def took_lock(fd: int) -> bool:
    """Whether this process has the lock now (`flock`); False if another has it, or another opening in this one.

    Raises:
        OSError: the file system has no locks, or another error of its.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
