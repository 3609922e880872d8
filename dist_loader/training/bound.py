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
        input: of these, waiting for input.
        late: of these, until the loader had it; in the rest TensorFlow took what was ready.
        reading: of all threads together, fetching files.
        decoding: of all threads together, decoding and resizing.
        ring_full: in which the loader had nothing to do, since the host batch was full.
        samples: read, for `reading` and `decoding`.
        trained: samples trained on in `seconds`, one that is gone over several times counted once.
        threads: that decode.
        requests: files asked for at the same time; for files of this machine as many as threads; 0: a stream, drawn by
            one thread.
    """

    rank: int
    seconds: float
    input: float
    late: float
    reading: float
    decoding: float
    ring_full: float
    samples: int
    trained: int
    threads: int
    requests: int

    @property
    def input_fraction(self) -> float:
        """Share of the training's time spent waiting for input."""
        return min(1.0, self.input / self.seconds) if self.seconds > 0 else 0.0

    @property
    def fetches(self) -> bool:
        """Whether reading takes longer than decoding, with as many at it as there are for each."""
        return self.reading / max(1, self.requests) > self.decoding / self.threads

    @property
    def device(self) -> float:
        """Seconds of training that were not spent waiting for input."""
        return max(0.0, self.seconds - self.input)

    def __post_init__(self) -> None:
        for name in ("rank", "trained", "samples", "threads", "requests"):  # they come over the wire as float64
            object.__setattr__(self, name, int(getattr(self, name)))

    def as_dict(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {**asdict(self), "device": self.device}


def what_bounds(waits: Waits, unit: str = "images") -> str:
    """One sentence: what bounds the job, with what was measured.

    Args:
        waits: of the rank that waited most.
        unit: what samples are called.
    """
    if waits.input_fraction < _WAITS_FOR_INPUT or not waits.samples:
        return f"device-bound: rank {waits.rank} waited for input {waits.input_fraction:.1%} of the time"
    waited = f"rank {waits.rank} waited for input {waits.input_fraction:.0%} of the time"
    if waits.late < waits.input / 2:
        taking = f"{waits.input - waits.late:.2g} of {waits.input:.2g} s for TensorFlow to take batches that were ready"
        return f"input-bound: {waited}, {taking}; longer epochs or larger batches are taken less often"
    part, seconds = ("reading", waits.reading) if waits.fetches else ("decoding", waits.decoding)
    each = 1e3 * seconds / waits.samples
    shown = f"{each:.0f}" if each >= 10 else f"{each:.2g}"
    return f"input-bound: {waited}, {shown} ms of {part} for each of its {unit}{_cure(waits)}"


def _cure(waits: Waits) -> str:
    """How many threads or requests keep up with the device, if that is more than there are."""
    if waits.requests == 0 and waits.fetches:
        return "; one thread draws a stream, what several can do belongs in map"
    local = waits.requests == waits.threads
    if not local and (waits.fetches or 0 < waits.requests < waits.threads):
        busy, has, what = waits.reading + waits.decoding, waits.requests, "requests at once"
    else:
        busy, has, what = waits.decoding + (waits.reading if local else 0), waits.threads, "threads"
    needed = math.ceil(busy / waits.samples * waits.trained / waits.device) if waits.device else 0
    return f"; {needed} {what} would feed this device (it has {has})" if needed > has else ""
