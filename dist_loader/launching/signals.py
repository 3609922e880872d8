"""Signals that arrive as data, to be waited for beside sockets, instead of interrupting something."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType, TracebackType

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OTHERS = (signal.SIGUSR1, signal.SIGUSR2)  # the job's own affair, handed on


class Signals:
    """Catches the signals that end or concern a job, and the end of child processes. For the main thread."""

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writing.fileno(), warn_on_full_buffer=False)
        for number in (*STOPPING, *OTHERS, signal.SIGCHLD):
            self._before[number] = signal.signal(number, _noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type] # what signal.signal returned
        self._reading.close()
        self._writing.close()

    def fileno(self) -> int:
        """For a selector: readable when a signal has arrived."""
        return self._reading.fileno()

    def arrived(self) -> list[signal.Signals]:
        """The signals since the last call, in order, without those that only say that a child has ended."""
        with contextlib.suppress(BlockingIOError):
            return [signal.Signals(n) for n in self._reading.recv(4096) if n != signal.SIGCHLD]
        return []

    def sleep(self, seconds: float) -> signal.Signals | None:
        """Wait, but not longer than until a signal that ends the job; which it was."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self, selectors.EVENT_READ)
            while True:
                selector.select(max(0.0, deadline - time.monotonic()))
                for number in self.arrived():
                    if number in STOPPING:
                        return number
                if time.monotonic() >= deadline:
                    return None


def _noted(number: int, frame: FrameType | None) -> None:
    """Does nothing: the wake-up file has the signal's number."""
