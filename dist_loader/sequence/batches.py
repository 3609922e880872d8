"""The batches of one rank: planned, read ahead into the host batch, and made what Keras takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.arrays import sample_bytes, shortened
from dist_loader.bad_samples import TolerantReader
from dist_loader.errors import ConfigError, ReadTimeout, SampleError
from dist_loader.pipeline import ReadingTimes
from dist_loader.sequence.planned import PassGroup, PlannedBatches
from dist_loader.sequence.weights import OwnWeights, mean_weights
from dist_loader.sizes import at_least_one, batches_in_host_batch
from dist_loader.window import HostWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_loader.arrays import Arrays
    from dist_loader.bad_samples import BadSamples
    from dist_loader.plan import Plan
    from dist_loader.readers import Reader
    from dist_loader.sequence.augment import Augmenter
    from dist_loader.sequence.data import Data, Numbers
    from dist_loader.sequence.order import Order

# Batches. One costs some 5 kB beside its samples (measured), which of many tiny ones would be more than the host batch.
_MOST_HELD = 4096


@dataclass(frozen=True)
class HostBatch:
    """How much is read ahead.

    Attributes:
        held: samples, or a size such as "4GiB"; never more than 4,096 batches.
        passes: how often a training goes over half of it.
        threads: that read.
        timeout: seconds after which a batch that is not ready is an error.
    """

    held: int | str
    passes: int
    threads: int
    timeout: float


class Batches:
    """Batches by epoch and step.

    Args:
        data: what there is, and how it is read.
        plan: which samples are in a step.
        rank: of this process.
        order: of the samples; None: the plan's own.
        bad_samples: what becomes of samples that cannot be read.
        weights: the samples' own; None if all weigh 1.
        host_batch: how much is read ahead.
        augment: changes the device batches that were read; None: nothing does.

    Raises:
        ConfigError: the host batch is too small.
    """

    def __init__(
        self,
        data: Data,
        plan: Plan,
        rank: int,
        order: Order | None,
        bad_samples: BadSamples,
        weights: OwnWeights | None,
        host_batch: HostBatch,
        augment: Callable[[Reader], Augmenter] | None = None,
    ) -> None:
        self._data = data
        self._rank = rank
        tolerant = TolerantReader(data.reader, bad_samples)
        self._reader: Reader = tolerant if augment is None else augment(tolerant)
        self._rows_at_once = None if augment is None else plan.device_batch
        self._always_weighted = bad_samples.on_bad == "weight0"
        self._advice = bad_samples.advice
        self._weights = weights
        self._host_batch = host_batch
        held = min(_MOST_HELD, batches_in_host_batch(host_batch.held, plan.local_batch, sample_bytes(data.reader)))
        if at_least_one("host_passes", host_batch.passes) > 1:
            plan = plan.in_passes(host_batch.passes, _half(held, host_batch.held, plan))
        again = plan.pass_batches if host_batch.passes > 1 else 0
        self.plan = plan
        self._frames = min(held, again + plan.batches + 1)  # more than an epoch ahead is of no use
        self._planned = PlannedBatches(plan, rank, self._frames, order)
        of_all_ranks = replace(plan, world_size=1, accumulate=plan.accumulate * plan.world_size)
        self._everywhere = PlannedBatches(of_all_ranks, 0, 1, order) if plan.world_size > 1 else self._planned
        self.one_length = False  # whether batches that need not be as long as the longest are so all the same
        self._group = PassGroup()
        self._window: HostWindow | None = None
        self._missing: tuple[int, set[int]] = 0, set()
        self.last_epoch: int | None = None  # reading ahead ends before it; None: after the next epoch

    def batch(self, epoch: int, step: int) -> tuple[Any, ...]:
        """What Keras gets at a step: inputs, targets if there are any, and weights if they are not all 1.

        Raises:
            SampleError: a sample could not be read; it names the rank, the path and the reason.
            TooManyBadSamples: more of them than the budget allows.
            ReadTimeout: the batch was not ready in time.
        """
        number = self.plan.batch_number(epoch, step)
        try:
            if self.plan.passes == 1:
                arrays, shown = self._read(epoch, number)
            else:
                arrays, shown = self._group.batch(epoch, self.plan.group(step), number, self._read)
        except SampleError as error:
            raise SampleError(error.sample, error.path, error.reason, self._rank, self._advice(error)) from error
        except ReadTimeout as error:
            raise ReadTimeout(f"rank {self._rank}: {error}") from error
        numbers, weights = self._planned.batch(self._planned.key(epoch, number))
        self._note_missing(epoch, numbers[shown != numbers])
        weights = np.where(shown < 0, np.float32(0), weights)  # content that does not count, of sample ~shown
        numbers = np.where(shown < 0, ~shown, shown)
        if self._data.varying is not None and self.varies:
            together, counts = self._everywhere.batch(self._planned.key(epoch, number))
            arrays = shortened(arrays, self._data.varying.names, self._data.varying.length(together[counts > 0]))
        x, y, of_parts = self._data.form.batch(arrays, numbers)
        if y is None:
            return (x,)
        if self._weights is None and of_parts is None and not self.plan.weighted and not self._always_weighted:
            return x, y
        own = None if self._weights is None else self._weights[numbers]
        return x, y, mean_weights(weights, own, of_parts)

    @property
    def varies(self) -> bool:
        """Whether the second axis of the arrays is not as long in every batch."""
        return self._data.varying is not None and not self.one_length

    def _read(self, epoch: int, number: int) -> tuple[Arrays, Numbers]:
        """What was read for a batch, by its number in the order of reading, and the samples that it shows."""
        if self._window is None:
            self._window = HostWindow(
                self._reader,
                self._planned.contents,
                self.plan.local_batch,
                self._frames,
                self._host_batch.threads,
                self._host_batch.timeout,
                self._data.clock,
                self._rows_at_once,
            )
        ahead = epoch + 2 if self.last_epoch is None else self.last_epoch
        return self._window.get_with_numbers(self._planned.key(epoch, number), until=self._planned.key(ahead, 0))

    def numbers(self, epoch: int, step: int) -> Numbers:
        """The samples of a step, int64, shape (local_batch,), fill included."""
        return self._planned.batch(self._planned.key(epoch, self.plan.batch_number(epoch, step)))[0]

    def missing(self, epoch: int) -> set[int]:
        """The samples that could not be read in an epoch, so far: the latest epoch of which a batch was asked for."""
        return set(self._missing[1]) if self._missing[0] == epoch else set()

    def _note_missing(self, epoch: int, numbers: Numbers) -> None:
        if self._missing[0] != epoch:
            self._missing = epoch, set()
        self._missing[1].update(numbers.tolist())

    def set_slices(self, slices: int) -> None:
        """Divide a device's part of the global batch into so many slices; what is in a batch stays as it is."""
        self.plan = self.plan.in_slices(slices)

    def times(self) -> ReadingTimes:
        """Where the time of the reading threads went since the window was opened."""
        return ReadingTimes() if self._window is None else self._window.times()

    def waits_for(self) -> str | None:
        """What the batch that somebody waits for still waits for; None if nobody waits for one."""
        return None if self._window is None else self._window.waits_for()

    def close(self) -> None:
        """Stop reading ahead and give the memory back. The next batch asked for starts it again."""
        self._group = PassGroup()
        window, self._window = self._window, None
        if window is not None:
            window.close()


def _half(held: int, host_batch: int | str, plan: Plan) -> int:
    """How many batches of a host batch are gone over again while the others are read."""
    if held < 2:
        raise ConfigError(
            f"host_passes needs a host batch of two batches or more, one to train on again and one to read "
            f"meanwhile; host_batch {host_batch!r} holds one, of {plan.local_batch} samples"
        )
    return held // 2
