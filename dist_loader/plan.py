"""Which samples a rank trains on at each step: a pure function of a few integers."""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.permutation import Permutation

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

    Args:
        samples: how many samples the index holds, at least 1.
        world_size: how many processes train together.
        device_batch: samples that one device computes at once.
        replicas: devices driven by one process.
        accumulate: device batches that each device computes for one update.
        seed: of the shuffling; any integer.
        shuffle: False keeps the order of the index in every epoch.
        remainder: `"weight"`, `"drop"` or `"wrap"`.

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

    def __post_init__(self) -> None:
        for name in ("samples", "world_size", "device_batch", "replicas", "accumulate"):
            object.__setattr__(self, name, _whole_number(name, getattr(self, name), at_least=1))
        object.__setattr__(self, "seed", _whole_number("seed", self.seed))
        if self.remainder not in get_args(Remainder):
            raise ConfigError(f"remainder must be one of {', '.join(get_args(Remainder))}, not {self.remainder!r}")
        if self.steps == 0:
            raise ConfigError(
                f'remainder="drop" leaves no step: {self.samples} samples are fewer than one global batch of '
                f'{self.global_batch}; lower device_batch or use remainder="weight"'
            )

    def with_global_batch(self, global_batch: int) -> Plan:
        """This plan with as many device batches to an update as make up a global batch.

        Raises:
            ConfigError: the global batch is no multiple of device_batch x replicas x world_size.
        """
        at_once = self.device_batch * self.replicas * self.world_size
        accumulate, rest = divmod(_whole_number("global_batch", global_batch, at_least=1), at_once)
        if rest or not accumulate:
            raise ConfigError(
                f"global_batch {global_batch} must be a multiple of {at_once}, which is device_batch "
                f"{self.device_batch} x {self.replicas} replicas x {self.world_size} ranks"
            )
        return replace(self, accumulate=accumulate)

    def in_slices(self, slices: int) -> Plan:
        """This plan with a device's part of an update computed in so many equal slices."""
        return replace(self, device_batch=self.device_rows // slices, accumulate=slices)

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
    def steps(self) -> int:
        """Steps in an epoch, the same on every rank."""
        whole, rest = divmod(self.samples, self.global_batch)
        return whole if self.remainder == "drop" else whole + (rest > 0)

    @property
    def weighted(self) -> bool:
        """Whether some step of an epoch is filled up with samples of weight 0."""
        return self.remainder == "weight" and self.samples % self.global_batch > 0

    def real_samples(self, step: int) -> int:
        """How many of a step's global batch count, that is, have weight 1."""
        step = _checked("step", step, self.steps)
        if self.remainder == "wrap":
            return self.global_batch
        return min(self.global_batch, self.samples - step * self.global_batch)

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
        epoch = _checked("epoch", epoch, None)
        step = _checked("step", step, self.steps)
        rank = _checked("rank", rank, self.world_size)
        first = step * self.global_batch + rank * self.local_batch
        positions = np.arange(first, first + self.local_batch, dtype=np.int64)
        weights = np.ones(self.local_batch, np.float32)
        if self.remainder == "weight":
            weights[positions >= self.samples] = 0
        positions %= self.samples
        return self._order(epoch, positions), weights

    def _order(self, epoch: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if not self.shuffle:
            return positions
        numbers: npt.NDArray[np.int64] = Permutation(self.samples, self.seed, epoch)[positions]
        return numbers


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
