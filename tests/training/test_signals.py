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
    before = signal.getsignal(signal.SIGINT)
    try:
        with signals.Signals(grace, clean=lambda: None) as watched:
            os.kill(os.getpid(), signal.SIGINT)
            while watched.received is None:
                time.sleep(0.01)
        time.sleep(0.4)
        assert ended == ([130] if grace < 1 and not interactive else [])
        assert (signal.getsignal(signal.SIGINT) is before) == interactive
    finally:
        signal.signal(signal.SIGINT, before)
        signal.set_wakeup_fd(-1)
