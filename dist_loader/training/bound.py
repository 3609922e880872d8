"""What bounds a training: the loader's reading or decoding, or the device."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

_WAITS_FOR_INPUT = 0.05  # share of the time; below it, more threads would not be felt


@dataclass(frozen=True)
class Waits:
    """What one rank waited for while it trained, in seconds.

    Attributes:
        rank: which.
        seconds: of training, without validation and without the first step.
        input: of these, waiting for the loader.
        reading: of all reading threads together, fetching files.
        decoding: of all reading threads together, decoding and resizing.
        ring_full: in which the loader had nothing to do, since the host batch was full.
        samples: read, for `reading` and `decoding`.
        trained: samples trained on in `seconds`, one that is gone over several times counted once.
        threads: that read.
    """

    rank: int
    seconds: float
    input: float
    reading: float
    decoding: float
    ring_full: float
    samples: int
    trained: int
    threads: int

    @property
    def input_fraction(self) -> float:
        """Share of the training's time spent waiting for input."""
        return min(1.0, self.input / self.seconds) if self.seconds > 0 else 0.0

    @property
    def device(self) -> float:
        """Seconds of training that were not spent waiting for input."""
        return max(0.0, self.seconds - self.input)

    def __post_init__(self) -> None:
        for name in ("rank", "trained", "samples", "threads"):  # they come over the wire as float64
            object.__setattr__(self, name, int(getattr(self, name)))

    def as_dict(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {**asdict(self), "device": self.device}


def what_bounds(waits: Waits) -> str:
    """One sentence: what bounds the job, with what was measured."""
    if waits.input_fraction < _WAITS_FOR_INPUT or not waits.samples:
        return f"device-bound: rank {waits.rank} waited for input {waits.input_fraction:.1%} of the time"
    busy = waits.reading + waits.decoding
    part, seconds = ("reading", waits.reading) if waits.reading > waits.decoding else ("decoding", waits.decoding)
    each = f"{1e3 * seconds / waits.samples:.2g} ms of {part} for each of its images"
    needed = math.ceil(busy / waits.samples * waits.trained / waits.device) if waits.device else 0
    cure = f"; {needed} threads would feed this device (it has {waits.threads})" if needed > waits.threads else ""
    return f"input-bound: rank {waits.rank} waited for input {waits.input_fraction:.0%} of the time, {each}{cure}"
