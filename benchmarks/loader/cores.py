"""What one way and all other programs take of the processor cores while it is measured. Linux: from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Use:
    """What was used of the cores.

    Args:
        seconds: of processor time that the process group used.
        others: the part of the cores' time, from 0 to 1, that went to anything else.
    """

    seconds: float
    others: float


class Watch:
    """Watches some cores and one process group from its creation on.

    Args:
        cores: numbers of the processor cores.
        group: identifier of the process group.
    """

    def __init__(self, cores: Sequence[int], group: int) -> None:
        self._cores = {f"cpu{core}" for core in cores}
        self._group = group
        self._before = self._now()

    def use(self) -> Use:
        """So far."""
        wall, busy, own = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return Use(own, min(1.0, max(0.0, (busy - own) / (wall * len(self._cores)))))

    def _now(self) -> tuple[float, float, float]:
        busy = 0
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, *ticks = line.split()
            if name in self._cores:
                user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, ticks[:8])
                busy += user + nice + system + irq + softirq + steal
        return time.monotonic(), busy / _TICKS, self._own() / _TICKS

    def _own(self) -> int:
        ticks = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
                if int(fields[2]) == self._group:
                    ticks += sum(map(int, fields[11:15]))  # its own time and that of the children it waited for
        return ticks
