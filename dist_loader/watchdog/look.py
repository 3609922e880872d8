"""What the watchdog's thread sees of its own process."""

from __future__ import annotations

import sys
import sysconfig
import time
from pathlib import Path
from types import FrameType

from dist_loader.watchdog.lines import State, printable
from dist_loader.watchdog.place import Notes

_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple(_PATHS[name] for name in ("stdlib", "purelib", "platlib"))
_OWN = str(Path(__file__).parents[1])
_LONG = 1.0  # seconds at a place after which it is worth looking where


class Look:
    """Makes states of a rank's notes. For the watchdog's thread alone."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._count = -1
        self._cpu = 0.0

    def state(self) -> State:
        """Where this rank is now."""
        place, cpu, now = self._notes.place, time.process_time(), time.monotonic()
        if place.count != self._count:
            self._count, self._cpu = place.count, cpu
        seconds = max(0.0, now - place.since)
        detail, doing, stage, step = "", place.doing, place.stage, place.step
        if doing in ("step", "first step", "between") and self._notes.input is not None:
            detail = self._notes.input(stage, step) or ""
            if not detail and (doing, stage) == ("between", "training"):
                detail = self._notes.input("validation", 0) or ""
                if detail:  # Keras looks at its first batch before it says that it begins
                    doing, stage, step = "first step", "validation", 0
        if detail and doing == "between":
            doing = "step"  # a stream is asked before Keras whether there is another
        elif not detail and doing in ("callbacks", "writing", "preparing", "between", "agreeing") and seconds > _LONG:
            detail = where(self._notes.thread)
        return State(
            place.count,
            stage,
            place.epoch,
            step,
            doing,
            round(seconds, 3),
            round(cpu - self._cpu, 3),
            printable(detail),
        )


def where(thread: int) -> str:
    """The innermost line of a thread that is no library's: "train.py:57 in on_epoch_end"; "" if there is none."""
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001 (documented, in spite of its name)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_OWN) or not (path.startswith(_LIBRARIES) or path.startswith("<frozen")):
            return f"{Path(path).name}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
