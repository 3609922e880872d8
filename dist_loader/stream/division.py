"""How the steps of a stream are divided among ranks, devices and slices: what `Plan` is where there is no index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from dist_loader.errors import ConfigError
from dist_loader.sizes import accumulation, at_least_one

Remainder = Literal["weight", "drop"]


@dataclass(frozen=True)
class Division:
    """Global batch s is items s x global batch to (s + 1) x global batch, and each rank's part contiguous in it.

    Attributes:
        world_size: how many processes train together.
        device_batch: samples that one device computes at once.
        replicas: devices driven by one process.
        accumulate: device batches that each device computes for one update.
        remainder: "weight" or "drop".
        steps_per_epoch: cut out of one stream; None: an epoch is a stream.
        shards: streams of which each rank has its own; 0 where all ranks draw the same one.

    Raises:
        ConfigError: a size below 1, or an unknown remainder.
    """

    world_size: int
    device_batch: int
    replicas: int = 1
    accumulate: int = 1
    remainder: Remainder = "weight"
    steps_per_epoch: int | None = None
    shards: int = 0

    def __post_init__(self) -> None:
        for name in ("world_size", "device_batch", "replicas", "accumulate"):
            at_least_one(name, getattr(self, name))
        if self.steps_per_epoch is not None:
            at_least_one("steps_per_epoch", self.steps_per_epoch)
        if self.remainder not in get_args(Remainder):
            raise ConfigError(f"remainder must be one of {', '.join(get_args(Remainder))}, not {self.remainder!r}")

    def with_global_batch(self, global_batch: int) -> Division:
        """As many device batches to an update as make up a global batch.

        Raises:
            ConfigError: the global batch is no multiple of device_batch x replicas x world_size.
        """
        given = at_least_one("global_batch", global_batch)
        return replace(self, accumulate=accumulation(given, self.device_batch, self.replicas, self.world_size))

    def in_slices(self, slices: int) -> Division:
        """The same with a device's part of an update computed in so many equal slices."""
        return replace(self, device_batch=self.device_rows // slices, accumulate=slices)

    @property
    def passes(self) -> int:
        """How often an epoch goes over each of its batches: once."""
        return 1

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
