"""Which samples a rank trains on at each step: a pure function of a few integers."""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.permutation import Permutation
from dist_loader.sizes import accumulation

if TYPE_CHECKING:
    from dist_loader.sequence.order import Order

Remainder = Literal["weight", "drop", "wrap"]


@dataclass(frozen=True)
class Plan:
    """The division of every epoch into steps, and of every step among ranks.

    An epoch is the index in the order of `Permutation(samples, seed, epoch)`. Step `s` takes the next
    `global_batch` positions of it; rank `r` takes the `r`-th contiguous part of those, `local_batch` long.
    So step `s` holds the same samples for every world size with the same global batch, and cut into device
    batches it holds the same device batches, too.

    The last step of an epoch may need more positions than there are samples. `remainder` says what then happens:

    * `"weight"`: the step is filled up with samples from the start of the epoch, at weight 0;
    * `"drop"`: the step is left out;
    * `"wrap"`: the step is filled up the same way, at weight 1.

    With `passes`, an epoch goes so many times over its batches, a group of `pass_batches` of them at a time: the first
    group, `passes` times, then the next. The first time over a group is in the epoch's order; each later one is in an
    order of its own, which follows from (seed, epoch, group, pass). So every sample comes `passes` times an epoch, and
    is read once by whoever keeps a group ("data echoing": D. Choi et al., "Faster neural network training with data
    echoing", 2019, arXiv 1907.05550).

    Args:
        samples: how many samples the index holds, at least 1.
        world_size: how many processes train together.
        device_batch: samples that one device computes at once.
        replicas: devices driven by one process.
        accumulate: device batches that each device computes for one update.
        seed: of the shuffling; any integer.
        shuffle: False keeps the order of the index in every epoch.
        remainder: `"weight"`, `"drop"` or `"wrap"`.
        passes: how often an epoch goes over each of its batches.
        pass_batches: global batches in a group; no more than an epoch has, and 1 where there is one pass.

    Raises:
        ConfigError: a size below 1, an unknown remainder, or a dropped remainder that leaves no step.
    """

    samples: int
    world_size: int
    device_batch: int
    replicas: int = 1
    accumulate: int = 1
    seed: int = 0
    shuffle: bool = True
    remainder: Remainder = "weight"
    passes: int = 1
    pass_batches: int = 1

    def __post_init__(self) -> None:
        for name in ("samples", "world_size", "device_batch", "replicas", "accumulate", "passes", "pass_batches"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name), at_least=1))
        object.__setattr__(self, "seed", _whole_number("seed", self.seed))
        if self.remainder not in get_args(Remainder):
            raise ConfigError(f"remainder must be one of {', '.join(get_args(Remainder))}, not {self.remainder!r}")
        if self.steps == 0:
            raise ConfigError(
                f'remainder="drop" leaves no step: {self.samples} samples are fewer than one global batch of '
                f'{self.global_batch}; lower device_batch or use remainder="weight"'
            )
        most = 1 if self.passes == 1 else self.batches
        object.__setattr__(self, "pass_batches", min(self.pass_batches, most))

    def with_global_batch(self, global_batch: int) -> Plan:
        """This plan with as many device batches to an update as make up a global batch.

        Raises:
            ConfigError: the global batch is no multiple of device_batch x replicas x world_size.
        """
        given = _whole_number("global_batch", global_batch, at_least=1)
        return replace(self, accumulate=accumulation(given, self.device_batch, self.replicas, self.world_size))

    def in_slices(self, slices: int) -> Plan:
        """This plan with a device's part of an update computed in so many equal slices."""
        return replace(self, device_batch=self.device_rows // slices, accumulate=slices)

    def in_passes(self, passes: int, batches: int) -> Plan:
        """This plan with every epoch going so many times over its batches, so many of them at a time."""
        return replace(self, passes=passes, pass_batches=batches)

    @property
    def device_rows(self) -> int:
        """Samples that one device handles for one update, in all its slices."""
        return self.device_batch * self.accumulate

    @property
    def local_batch(self) -> int:
        """Samples that one process handles for one update, on all its devices together."""
        return self.device_rows * self.replicas

    @property
    def global_batch(self) -> int:
        """Samples behind one optimizer update."""
        return self.local_batch * self.world_size

    @property
    def batches(self) -> int:
        """Global batches in an epoch, the same on every rank."""
        whole, rest = divmod(self.samples, self.global_batch)
        return whole if self.remainder == "drop" else whole + (rest > 0)

    @property
    def steps(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return self.passes * self.batches

    @property
    def weighted(self) -> bool:
        """Whether some step of an epoch is filled up with samples of weight 0."""
        return self.remainder == "weight" and self.samples % self.global_batch > 0

    def real_samples(self, step: int) -> int:
        """How many of a step's global batch count, that is, have weight 1; the same in every epoch."""
        if self.remainder == "wrap":
            _checked("step", step, self.steps)
            return self.global_batch
        return min(self.global_batch, self.samples - self.batch_number(0, step) * self.global_batch)

    def group(self, step: int) -> range:
        """The batches that an epoch goes over together when it is at a step: numbers from 0 to `batches - 1`."""
        first = _checked("step", step, self.steps) // (self.passes * self.pass_batches) * self.pass_batches
        return range(first, min(first + self.pass_batches, self.batches))

    def batch_number(self, epoch: int, step: int) -> int:
        """Which batch of an epoch a step trains on: from 0 to `batches - 1`, in the order of reading."""
        if self.passes == 1:
            return _checked("step", step, self.steps)
        group = self.group(step)
        this_pass, at = divmod(step - self.passes * group.start, len(group))
        if this_pass and self.shuffle:
            # A batch that is not full stays where it is, so that the steps count as much in every epoch.
            free = len(group) - (group.stop * self.global_batch > self.samples)
            if at < free:
                at = _order_of_pass(free, self.seed, epoch, group.start, this_pass)[at]
        return group[at]

    def batch(self, epoch: int, step: int, rank: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The samples of one rank at one step.

        Args:
            epoch: from 0.
            step: from 0 to `steps - 1`.
            rank: from 0 to `world_size - 1`.

        Returns:
            Sample numbers, int64, shape (local_batch,), and their weights, float32, shape (local_batch,):
            1, or 0 for the fill of the last step. In time and memory it costs O(local_batch).

        Raises:
            IndexError: an epoch, step or rank out of its range.
        """
        number = self.batch_number(_checked("epoch", epoch, None), step)
        numbers, weights = self.read(epoch, number, 1, rank)
        return numbers[0], weights[0]

    def read(
        self, epoch: int, first: int, count: int, rank: int, order: Order | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The samples of one rank in consecutive batches, in the order of reading. Several at once cost little more.

        Args:
            epoch: from 0.
            first: the first batch, from 0 to `batches - 1`.
            count: how many; fewer come where the epoch ends.
            rank: from 0 to `world_size - 1`.
            order: which samples are at an epoch's positions; None: those of the index, shuffled or not.

        Returns:
            As `batch`, of shape (count, local_batch).

        Raises:
            IndexError: an epoch, batch or rank out of its range.
        """
        epoch = _checked("epoch", epoch, None)
        first = _checked("batch", first, self.batches)
        rank = _checked("rank", rank, self.world_size)
        starts = np.arange(first, min(first + count, self.batches), dtype=np.int64) * self.global_batch
        positions = np.add.outer(starts + rank * self.local_batch, np.arange(self.local_batch, dtype=np.int64))
        weights = np.ones(positions.shape, np.float32)
        if self.remainder == "weight":
            weights[positions >= self.samples] = 0
        positions %= self.samples
        return self._order(epoch, positions) if order is None else order.samples(epoch, positions), weights

    def _order(self, epoch: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not self.shuffle:
            return positions
        numbers: npt.NDArray[np.int64] = Permutation(self.samples, self.seed, epoch)[positions]
        return numbers


@lru_cache(4)
def _order_of_pass(batches: int, seed: int, epoch: int, group: int, number: int) -> list[int]:
    """The order in which a later pass goes over a group: BLAKE2b of the integers, written out, seeds a permutation."""
    text = f"{seed:x},{epoch:x},{group:x},{number:x}".encode()
    digest = hashlib.blake2b(text, digest_size=16, person=b"dist_loader.pass").digest()
    order: list[int] = Permutation(batches, int.from_bytes(digest, "little"), 0)[:].tolist()
    return order


def _checked(name: str, value: int, below: int | None) -> int:
    """`value` as a Python int, whose products with other sizes do not overflow as NumPy's do."""
    value = operator.index(value)
    if value < 0 or (below is not None and value >= below):
        raise IndexError(f"{name} {value} is not in [0, {'...' if below is None else below})")
    return value


def _whole_number(name: str, value: object, at_least: int | None = None) -> int:
    """`value` as a Python int, for NumPy's integers are welcome and floats and truth values are mistakes."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ConfigError(f"{name} must be a whole number, not {value!r}")
    if at_least is not None and value < at_least:
        raise ConfigError(f"{name} must be at least {at_least}, not {value}")
    return int(value)


def refuse_passes(what: str, passes: int) -> None:
    """Raise if an epoch goes over its samples several times, for what counts each of them.

    Raises:
        ConfigError: it does.
    """
    if passes > 1:
        raise ConfigError(f"{what} needs every sample once; make the sequence without host_passes={passes}")
