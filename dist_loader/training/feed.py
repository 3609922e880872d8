"""What a training needs of the sequence that feeds it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from dist_loader.bad_samples import BadSamples
from dist_loader.pipeline import ReadingTimes
from dist_loader.world import World


class Division(Protocol):
    """How a global batch is divided among ranks, devices and slices; a dataclass of what must be the same on all."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    device_batch: int
    replicas: int
    accumulate: int
    passes: int
    device_rows: int
    local_batch: int
    global_batch: int


@runtime_checkable
class Feed(Protocol):
    """A sequence: one rank's batches of each epoch. How many there are may not be known before an epoch's end."""

    world: World
    host_batch: int | str
    threads: int
    requests: int
    unit: str
    failure: Exception | None
    finds_device_batch: bool
    epoch: int

    @property
    def plan(self) -> Division:
        """How a step is divided."""

    @property
    def bad_samples(self) -> BadSamples:
        """What could not be read."""

    @property
    def num_batches(self) -> int | None:
        """Steps in every epoch; None if they are not known before."""

    def steps_in(self, epoch: int) -> int | None:
        """Steps of an epoch; None if it has not come to its end yet."""

    def samples_in(self, epoch: int) -> int | None:
        """Samples of all ranks in an epoch; None if it has not come to its end yet."""

    def real_samples(self, epoch: int, step: int) -> int:
        """Samples of all ranks in a step that was handed out, the fill not counted."""

    def of_one_length(self) -> AbstractContextManager[None]:
        """Batches that are all of one length meanwhile."""

    def example(self) -> Any:
        """A batch that shows shapes and types; all ranks ask for it alike."""

    def facts(self) -> dict[str, Any]:
        """What must be the same on all ranks."""

    def fingerprints(self) -> dict[str, str]:
        """What tells one training's data from another's."""

    def start_at(self, epoch: int, step: int) -> None:
        """Go on in the middle of an epoch."""

    def first_step(self, epoch: int) -> int:
        """The step that a pass of an epoch begins at."""

    def read_ahead_to(self, epochs: int | None) -> None:
        """Read ahead to the end of so many epochs and no further; None, as at first."""

    def set_slices(self, slices: int) -> None:
        """Divide a device's part of the global batch into so many slices."""

    def reading_times(self) -> ReadingTimes:
        """Where the time of the reading threads went."""

    def waited(self, first: int, last: int, asked: float, now: float) -> tuple[float, float]:
        """Seconds that steps waited for input, and of these, in which it was not ready.

        Args:
            first: of the steps, which were done at once.
            last: of them.
            asked: when Keras asked for their batches, in seconds of `time.monotonic`.
            now: when they were done.
        """

    def waits_for(self, step: int) -> str | None:
        """What the batch of a step still waits for on this rank; None if for nothing."""

    def refuse_to_predict(self) -> None:
        """Raise a ConfigError if an epoch does not hold every sample once."""

    def rows_of(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The samples in the rows of this rank's batches in an epoch, and which rows count, both of one length."""

    def missing(self, epoch: int) -> set[int]:
        """The samples that could not be read in an epoch."""

    def name(self, number: int) -> str:
        """What a person would call a sample."""

    def close(self) -> None:
        """Stop reading ahead."""
