"""What is left of watching for signals when a training has been ended by one; on ranks: tests/distributed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from dist_loader.training import signals

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("interactive", [False, True], ids=["program", "notebook"])
@pytest.mark.parametrize("grace", [0.2, 1e12])
def test_a_program_is_ended_after_the_grace_period_and_a_notebook_is_not(
    monkeypatch: pytest.MonkeyPatch, interactive: bool, grace: float
) -> None:
    ended: list[int] = []

    def end_now(code: int) -> None:
        ended.append(code)
        threading.Event().wait()  # the watching thread does not go on

    monkeypatch.setattr(signals, "end_now", end_now)
    monkeypatch.delattr(sys, "ps1", raising=False)
    if interactive:
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    before = {signum: signal.getsignal(signum) for signum in _SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, as in a shell's background
    try:
        with signals.Signals(grace, clean=lambda: None) as watched:
            os.kill(os.getpid(), signal.SIGINT)
            assert _comes(lambda: watched.received == signal.SIGINT)
        time.sleep(0.4)
        assert ended == ([130] if grace < 1 and not interactive else [])
        assert (signal.getsignal(signal.SIGINT) is signal.default_int_handler) == interactive
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(-1)


def _comes(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def test_under_nohup_no_thread_is_left() -> None:
    before, running = {signum: signal.signal(signum, signal.SIG_IGN) for signum in _SIGNALS}, threading.active_count()
    try:
        with signals.Signals(1.0, clean=lambda: None):
            assert threading.active_count() == running + 1
        assert _comes(lambda: threading.active_count() == running)
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
