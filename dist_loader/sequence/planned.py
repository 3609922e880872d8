"""What the batches of a rank hold, looked up in the plan for several of them at once."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from dist_loader.arrays import by_name

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt

    from dist_loader.arrays import Arrays
    from dist_loader.plan import Plan
    from dist_loader.sequence.order import Order

_AT_ONCE = 1024  # samples: the price of a sample is then a tenth of what it is in a batch of 64 (measured)


class PlannedBatches:
    """The batches of one rank by key: the first of epoch 0 is 0, and each next one, in the order of reading, one more.

    What was looked up is kept until as many batches as may be read ahead have followed: it is asked for twice, by who
    reads and by who trains.

    Args:
        plan: which samples are in a batch.
        rank: whose part of it.
        ahead: how many batches are read ahead at most.
        order: of the samples; None: the plan's own.
    """

    def __init__(self, plan: Plan, rank: int, ahead: int, order: Order | None = None) -> None:
        self._batches = plan.batches
        self._length = max(1, _AT_ONCE // plan.local_batch)
        self._some = lru_cache(ahead // self._length + 3)(
            lambda epoch, part: plan.read(epoch, part * self._length, self._length, rank, order)
        )

    def key(self, epoch: int, number: int) -> int:
        """Of a batch of an epoch."""
        return epoch * self._batches + number

    def contents(self, key: int) -> tuple[int, npt.NDArray[np.int64]]:
        """Epoch and sample numbers of a batch."""
        return key // self._batches, self.batch(key)[0]

    def batch(self, key: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Sample numbers and weights of a batch, each of shape (local_batch,); not to be written to."""
        epoch, number = divmod(key, self._batches)
        part, at = divmod(number, self._length)
        numbers, weights = self._some(epoch, part)
        return numbers[at], weights[at]


Batch: TypeAlias = "tuple[Arrays, npt.NDArray[np.int64]]"  # what was read, and the samples that it shows


class PassGroup:
    """The batches that an epoch goes over several times, kept until it goes on to other ones."""

    def __init__(self) -> None:
        self._kept: tuple[object, dict[int, Batch]] = None, {}

    def batch(self, epoch: int, group: range, number: int, read: Callable[[int, int], Batch]) -> Batch:
        """A batch of a group, not to be written to.

        Args:
            epoch: which.
            group: numbers of its batches that are gone over together.
            number: of the batch.
            read: from an epoch and a batch's number to the batch, for those that are not there yet.
        """
        place, kept = self._kept
        if place != (epoch, group):
            del kept
            kept = {}
            self._kept = (epoch, group), kept  # before anything is read: the frames of the last group are free
        for one in range(group.start, number + 1):  # in the order in which they are read ahead
            if one not in kept:
                kept[one] = read(epoch, one)
                for array in by_name(kept[one][0]).values():
                    array.flags.writeable = False  # what is changed in place would be changed again in the next pass
        return kept[number]
