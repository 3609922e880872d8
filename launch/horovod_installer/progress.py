"""What the terminal shows while a long step runs."""

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PLAIN_INTERVAL_SECONDS = 25.0
TTY_INTERVAL_SECONDS = 1.0
PERCENT = re.compile(rb"\[ *(\d+)%\]")  # as make prints it under CMake
TAIL_BYTES = 2**18


def say(text: str) -> None:
    """One line, at once."""
    print(f"install_horovod: {text}", flush=True)


def clock(seconds: float) -> str:
    """Minutes and seconds: 3:07."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def percent_done(log: Path) -> str:
    """The last percentage in a build log, or nothing."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        found = PERCENT.findall(file.read())
    return f", {int(found[-1])}%" if found else ""


@contextlib.contextmanager
def ticking(what: str, detail: Callable[[], str] = lambda: "") -> Iterator[Callable[[], None]]:
    """Gives a function to call often: a terminal gets one line that updates itself, a log a plain line now and then."""
    tty = sys.stdout.isatty()
    interval = TTY_INTERVAL_SECONDS if tty else PLAIN_INTERVAL_SECONDS
    start = last = time.monotonic()
    if not tty:
        say(f"{what} ...")

    def tick() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < interval:
            return
        last = now
        line = f"{what} ... {clock(now - start)}{detail()}"
        if tty:
            print(f"\r\033[Kinstall_horovod: {line}", end="", flush=True)
        else:
            say(line)

    try:
        yield tick
    finally:
        if tty:
            print("\r\033[K", end="", flush=True)
    say(f"{what}: done in {clock(time.monotonic() - start)}")
