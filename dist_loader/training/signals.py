"""SIGTERM and SIGINT: the training ends after the step, in good order, and within a bounded time."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dist_loader.ending import end_now

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A launcher and a terminal may both pass on what was one request; what comes later is a second one.
_ONE_REQUEST_SECONDS = 0.5
_LONGEST_GRACE = 1e9  # seconds that can be waited for


class Interrupted(SystemExit):
    """The training was ended by a signal, and written down before; exits with 128 + the signal's number (143, 130)."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(128 + signum)
        self.signum = signum
        self.message = message

    def __str__(self) -> str:
        return self.message


class Signals:
    """Watches for signals while it is entered.

    The first one is a request, noted in `received`. The process ends at once when it has not ended by itself within
    the grace period, or when a second signal comes; also while its main thread waits for other ranks. After a request
    the watch goes on until the process has ended, but not in a notebook.

    Python calls signal handlers in the main thread alone; in another thread, entering does nothing.

    Args:
        grace: seconds from a request to the end.
        clean: called before the process is ended.
    """

    def __init__(self, grace: float, clean: Callable[[], object]) -> None:
        self.received: int | None = None
        self._grace = min(grace, _LONGEST_GRACE)
        self._clean = clean
        self._watched = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        threading.Thread(target=self._watch, name="dist_loader-signals", daemon=True).start()
        self._watched = True
        self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in _SIGNALS:
            if signal.getsignal(signum) is not signal.SIG_IGN:  # as under nohup
                self._before[signum] = signal.signal(signum, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._watched or (self.received is not None and not _goes_on_after()):
            return
        for signum, handler in self._before.items():
            signal.signal(signum, handler)  # type: ignore[arg-type]  # what `signal` returned
        signal.set_wakeup_fd(self._fd_before)
        os.write(self._write, b"\0")

    def _watch(self) -> None:
        requested = 0.0
        while True:
            left = None if self.received is None else max(0.0, requested + self._grace - time.monotonic())
            if not select.select([self._read], [], [], left)[0]:
                self._end(f"not done {self._grace:g} s after signal {self.received}")
            for signum in os.read(self._read, 64):
                if not signum:
                    os.close(self._read)
                    os.close(self._write)
                    return
                if signum not in _SIGNALS:
                    continue
                if self.received is None:
                    self.received, requested = signum, time.monotonic()
                elif time.monotonic() > requested + _ONE_REQUEST_SECONDS:
                    self._end("a second signal came")

    def _end(self, why: str) -> None:
        assert self.received is not None
        print(f"dist_loader: {why}; ending at once, with what the last checkpoint holds", file=sys.stderr, flush=True)
        self._clean()
        end_now(128 + self.received)


def _goes_on_after() -> bool:
    """Whether this process outlives a training that was ended, as a notebook's does, for whose user SIGINT is a key."""
    return hasattr(sys, "ps1")
