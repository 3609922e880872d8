"""What is left of watching for signals when a training has been ended by one; on ranks: tests/distributed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from dist_loader.training import signals


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
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        with signals.Signals(grace, clean=lambda: None) as watched:
            os.kill(os.getpid(), signal.SIGINT)
            while watched.received is None:
                time.sleep(0.01)
        time.sleep(0.4)
        assert ended == ([130] if grace < 1 and not interactive else [])
        assert (signal.getsignal(signal.SIGINT) is before[signal.SIGINT]) == interactive
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(-1)


def test_under_nohup_no_thread_is_left() -> None:
    signums = (signal.SIGINT, signal.SIGTERM)
    before, running = {signum: signal.signal(signum, signal.SIG_IGN) for signum in signums}, threading.active_count()
    try:
        with signals.Signals(1.0, clean=lambda: None):
            assert threading.active_count() == running + 1
        deadline = time.monotonic() + 10
        while threading.active_count() > running and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == running
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
