"""Stacks that are left while Python stands still, and while it does not."""

from __future__ import annotations

import ctypes
import threading
import time
from pathlib import Path

from dist_loader.watchdog.stack_timer import StackTimer


def hold_python(seconds: int) -> None:
    ctypes.PyDLL(None).sleep(seconds)


def test_the_stack_comes_while_python_stands_still(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        timer = StackTimer(threading.get_native_id())
        timer.start(0.2, log.fileno())
        hold_python(1)
        timer.end()
        stack = (tmp_path / "log").read_text()
    assert stack.startswith("Stack (most recent call first):")
    assert "in hold_python" in stack


def test_no_stack_comes_of_a_timer_that_is_started_again_in_time_or_ended(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        timer = StackTimer(threading.get_native_id())
        for _ in range(5):
            timer.start(0.5, log.fileno())
            time.sleep(0.01)
        timer.end()
        timer.end()
        time.sleep(0.6)
        assert (tmp_path / "log").read_text() == ""


def test_a_process_outlives_stacks_that_come_while_its_threads_run(tmp_path: Path) -> None:
    """faulthandler's own timer, whose thread reads stacks that change, ended one process in a few so."""

    def start_threads() -> None:
        while not over.is_set():
            thread = threading.Thread(target=time.sleep, args=(0.0001,))
            thread.start()
            thread.join()

    over = threading.Event()
    busy = threading.Thread(target=start_threads)
    busy.start()
    with (tmp_path / "log").open("w+") as log:
        timer = StackTimer(threading.get_native_id())
        for _ in range(1000):
            timer.start(0.0, log.fileno())
            time.sleep(0.001)
        timer.end()
        over.set()
        busy.join()
        assert (tmp_path / "log").read_text().count("Stack (most recent") > 500
