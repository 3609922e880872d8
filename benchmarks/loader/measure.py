"""One epoch of one way: how long it took, and whether it delivered what it should."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, SIZE, fingerprints

# Levels of 255 (root mean square over the cells) between a way's picture and the reference: decoders and filters
# differ by about 1, one picture and the next by 20 and more.
TOLERANCE = 4.0


class WrongDelivery(Exception):
    """A way that did not do what is measured."""


@dataclass
class Seen:
    """What a way has delivered.

    Args:
        thorough: look at every pixel, which costs time, for epochs that are not timed.
    """

    thorough: bool = False
    images: int = 0
    sample: int = 0  # sum over some pixels: two epochs of one way must agree, whatever their order
    prints: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def add(self, batch: npt.NDArray[Any]) -> None:
        """Take a batch in.

        Raises:
            WrongDelivery: it is not uint8, or not of the shape that was asked for.
        """
        if batch.dtype != np.uint8 or batch.shape[1:] != (SIZE, SIZE, 3) or not 0 < len(batch) <= BATCH:
            raise WrongDelivery(f"a batch is {batch.dtype} of shape {batch.shape}")
        self.images += len(batch)
        self.sample += int(batch[:, ::32, ::32].sum(dtype=np.int64))
        if self.thorough:
            self.prints.append(fingerprints(batch))

    def merge(self, other: Seen) -> None:
        """Take in what another process has seen."""
        self.images += other.images
        self.sample += other.sample
        self.prints += other.prints


Epoch = Callable[[Seen], None]


def observed(batches: Callable[[], Iterable[npt.NDArray[Any]]]) -> Epoch:
    """An epoch of a way that yields its batches."""

    def epoch(seen: Seen) -> None:
        for batch in batches():
            seen.add(batch)

    return epoch


def check_pictures(seen: Seen, expected: npt.NDArray[np.float32]) -> None:
    """Every picture was delivered once and looks as it should.

    Raises:
        WrongDelivery: with what is missing, or differs.
    """
    if seen.images != len(expected):
        raise WrongDelivery(f"{seen.images} images were delivered, not {len(expected)}")
    delivered = np.concatenate(seen.prints)
    squares = (delivered**2).sum(1)[:, None] - 2 * delivered @ expected.T + (expected**2).sum(1)
    nearest = squares.argmin(1)
    worst = float(np.sqrt(((delivered - expected[nearest]) ** 2).mean(1)).max())
    if worst > TOLERANCE:
        raise WrongDelivery(f"a picture is {worst:.1f} levels from the file that it resembles most")
    missing = np.setdiff1d(np.arange(len(expected)), nearest)
    if len(missing):
        raise WrongDelivery(f"{len(missing)} images were never delivered, and others twice; the first is {missing[0]}")


def warm_up(epoch: Epoch, expected: npt.NDArray[np.float32]) -> Seen:
    """The first epoch, which is not timed: looks at every pixel.

    Raises:
        WrongDelivery: see `check_pictures`.
    """
    seen = Seen(thorough=True)
    epoch(seen)
    check_pictures(seen, expected)
    return seen


def seconds(epoch: Epoch, first: Seen) -> float:
    """How long an epoch takes.

    Raises:
        WrongDelivery: it differs from what the first one delivered.
    """
    seen = Seen()
    started = time.perf_counter()
    epoch(seen)
    took = time.perf_counter() - started
    if (seen.images, seen.sample) != (first.images, first.sample):
        raise WrongDelivery(f"{seen.images} images with other pixels than in the first epoch, of {first.images}")
    return took
