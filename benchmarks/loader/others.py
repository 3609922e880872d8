"""How busy other programs keep the processor cores while one way is measured. Linux: from /proc."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Others:
    """Watches some cores and one process group from its creation on.

    Args:
        cores: numbers of the processor cores.
        group: identifier of the process group that is measured.
    """

    def __init__(self, cores: Sequence[int], group: int) -> None:
        self._cores = {f"cpu{core}" for core in cores}
        self._group = group
        self._before = self._now()

    def share(self) -> float:
        """The part of the cores' time, from 0 to 1, that went to anything but the process group."""
        wall, busy, own = (now - before for now, before in zip(self._now(), self._before, strict=True))
        return min(1.0, max(0.0, (busy - own) / (wall * len(self._cores))))

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
