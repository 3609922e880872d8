"""Leaves the stack of a thread in a file after a while, even if Python stands still by then: a C call holds its lock.

`faulthandler.dump_traceback_later` does so from a thread of its own, that reads the stacks of threads while they run:
where Python does not stand still after all (a process that was stopped, and goes on), the process may crash. Here the
kernel sends a signal to the thread itself, which writes down its own stack and goes on.
"""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import time

_SIGNAL = signal.SIGRTMAX - 3  # nobody's; glibc takes the lowest for itself
_TO_THREAD = 4  # SIGEV_THREAD_ID


class _Event(ctypes.Structure):  # struct sigevent of Linux, 64 bytes
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("thread", ctypes.c_int),
        ("padding", ctypes.c_byte * 44),
    )


class _Times(ctypes.Structure):  # struct itimerspec
    _fields_ = (
        ("every_seconds", ctypes.c_long),
        ("every_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


class StackTimer:
    """A timer for one thread; does nothing where the system has no such timers (it is no Linux).

    Args:
        thread: the thread's number in the system, `threading.get_native_id()`.
    """

    def __init__(self, thread: int) -> None:
        self._library = ctypes.CDLL(None)
        self._timer: ctypes.c_void_p | None = None
        if hasattr(self._library, "timer_create"):
            timer, event = ctypes.c_void_p(), _Event(None, _SIGNAL, _TO_THREAD, thread)
            if self._library.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0:
                self._timer = timer

    def start(self, seconds: float, file: int) -> None:
        """Leave the stack in a file (a descriptor) after so many seconds from now, unless started again before."""
        if self._timer is not None:
            faulthandler.register(_SIGNAL, file=file, all_threads=False)
            self._set(max(seconds, 1e-9))

    def end(self) -> None:
        """Leave no stack any more."""
        if self._timer is not None:
            self._library.timer_delete(self._timer)
            self._timer = None

    def _set(self, seconds: float) -> None:
        whole = int(seconds)
        times = _Times(0, 0, whole, int((seconds - whole) * 1e9))
        self._library.timer_settime(self._timer, 0, ctypes.byref(times), None)
