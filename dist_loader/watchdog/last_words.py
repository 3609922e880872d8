"""What a process does when the watchdog ends its job: say why, leave its stacks, go."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from dist_loader.ending import ENDED_BY_ANOTHER, end_now

_LONGEST_WRITE = 2.0  # seconds; a pipe may be full, and whoever reads it stopped


def log_file() -> int | None:
    """The file descriptor of this process's log, if the logger "dist_loader" has one."""
    logger: logging.Logger | None = logging.getLogger("dist_loader")
    while logger is not None:
        for handler in logger.handlers:
            if isinstance(handler, logging.FileHandler) and handler.stream is not None:
                return handler.stream.fileno()
        logger = logger.parent if logger.propagate else None
    return None


def leave_in_log(text: str, thread: int | None, blamed: bool) -> None:
    """Write a message and the stacks of all threads to this process's log; the stacks to stderr if it has none.

    Without a log, and without blame, the stacks are left out: they are not what is asked for. Nothing of `logging` is
    used, whose locks a stuck thread may hold.

    Args:
        text: why.
        thread: identity of the thread that trains; None: no stacks.
        blamed: whether this process is, or may be, the reason.
    """
    file = log_file()
    where = 2 if file is None else file

    def write() -> None:
        if file is not None:
            write_all(file, f"{time.strftime('%Y-%m-%d %H:%M:%S')} ERROR {text}\n")
        if thread is not None and (file is not None or blamed):
            write_all(where, f"stacks of process {os.getpid()}; thread 0x{thread:016x} trains:\n")
            faulthandler.dump_traceback(where, all_threads=True)

    _bounded(write)


def speak(text: str) -> None:
    """Write a message to stderr."""
    _bounded(lambda: write_all(2, f"{text}\n"))


def go() -> NoReturn:
    """End this process, whatever its other threads do and hold."""
    _bounded(lambda: end_now(ENDED_BY_ANOTHER))
    os._exit(ENDED_BY_ANOTHER)


def write_all(file: int, text: str) -> None:
    """Write all of a text to a file descriptor, or as much as it takes."""
    data = text.encode(errors="backslashreplace")
    try:
        while data:
            data = data[os.write(file, data) :]
    except OSError:
        return


def _bounded(write: Callable[[], None]) -> None:
    thread = threading.Thread(target=write, name="dist_loader-last-words", daemon=True)
    thread.start()
    thread.join(_LONGEST_WRITE)
