"""A user's generator or iterable of unknown length as a sequence: every rank takes its own part."""

from __future__ import annotations

import itertools
import time
import weakref
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from dist_loader.cores import reading_threads
from dist_loader.draws import HANDED_TO_TENSORFLOW_AHEAD, Draws, as_dataset
from dist_loader.errors import ConfigError
from dist_loader.keras_calls import (
    builds_model,
    refuse_unsynchronised_fit,
    refuse_what_keras_would_ignore,
    take_steps_as_they_come,
)
from dist_loader.pipeline import ReadingTimes
from dist_loader.sizes import at_least_one, checked_seconds
from dist_loader.stream.ahead import How
from dist_loader.stream.bad import BadItems
from dist_loader.stream.batch import Part
from dist_loader.stream.division import Division, Remainder
from dist_loader.stream.feeder import Feeder
from dist_loader.stream.source import Source
from dist_loader.topology import Topology, agreed_world
from dist_loader.world import World

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from dist_loader.bad_samples import BadSamples
    from dist_loader.stream.items import Kind
    from dist_loader.stream.source import Make
    from dist_loader.stream.vote import Gather

# Of the sequences of a rank, which all ranks make in the same order.
_numbers: defaultdict[World, Iterator[int]] = defaultdict(itertools.count)


class _Speaks(Protocol):
    def gatherer(self, name: str) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
        """A function that brings rows of all ranks together."""


class Connected(Topology, Protocol):
    """A strategy whose ranks can speak to each other."""

    @property
    def devices(self) -> _Speaks:
        """Of all ranks."""


class StreamSequence(DataAdapter):  # type: ignore[misc]
    """The items of a user's generator, batch by batch, for one rank, whatever their number (docs/streams.md).

    A batch is `(x, y, weights)`, or `(x,)` where items have no targets: arrays or structures of arrays of shape
    (batch, ...). The weights are float32, those of the items, or 1; the fill of a last batch has weight 0 (see
    `BatchSequence`).

    Step s of an epoch is items s x global batch to (s + 1) x global batch of the stream, and each rank takes its part
    of those: every rank runs the stream, and leaves the others' items alone. Where the user divides the stream
    (`sharded`), a rank's part of step s is the next items of its own stream. The ranks agree on every step, ahead of
    the training: an epoch ends on all ranks with the first step for which one has not all of its items.

    Nothing is ever pickled, and there are no worker processes: one thread draws, several map.

    Args:
        make: a function that returns an iterable, called once for every epoch on every rank; it may take `epoch`,
            `rank` and `world_size` by name. Or an iterable that can be gone through again, or a generator, which
            cannot. An item is x, (x, y) or (x, y, weight), each a number, an array, or a dictionary or tuple of them;
            the first item says which, and all are alike.
        device_batch: samples that one device computes at once.
        host_batch: samples held in memory by this process, read ahead: a number of samples, or a size such as "4GiB".
        map: a function applied to every item of this rank, in several threads, before it goes into a batch; the order
            stays. The place for decoding. Every rank applies it to the first item that it draws, too.
        threads: threads that map; by default, this rank's share of the cores.
        batched: what `make` gives are whole batches, of any length, whose rows are the items.
        sharded: each rank's stream is its own part; known by itself where make takes `rank` or `world_size`.
        steps_per_epoch: all epochs are cut out of one stream, so many steps each. For streams without an end.
        strategy: what `dist_loader.init` returned; gives the world and the number of replicas.
        world: this process, where there is no strategy; one rank alone.
        global_batch: samples behind one update, a multiple of device_batch x replicas x world size.
        remainder: what becomes of a last step that is not full: "weight" (see `Plan`) or "drop".
        timeout: seconds after which a step that is not there is an error, which names the rank that lacks it.
        on_bad: what becomes of an item for which `map` raises (docs/bad_samples.md). "raise": the training ends with a
            `StreamError`. "weight0": its place has weight 0, so that the others' mean is exact.
        bad_budget: how many items may be bad before the job stops. By default 16.
        bad_file: as in `BatchSequence`.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do.
    """

    finds_device_batch = False

    unit = "samples"  # what a training counts in a second

    def __init__(
        self,
        make: Make,
        device_batch: int,
        host_batch: int | str = "256MiB",
        *,
        map: Callable[[Any], Any] | None = None,  # noqa: A002 (what it is, under the name that tf.data has for it)
        threads: int | None = None,
        batched: bool = False,
        sharded: bool = False,
        steps_per_epoch: int | None = None,
        strategy: Connected | None = None,
        world: World | None = None,
        global_batch: int | None = None,
        remainder: Remainder = "weight",
        timeout: float = 300.0,
        on_bad: Literal["raise", "weight0"] = "raise",
        bad_budget: int | None = None,
        bad_file: str | os.PathLike[str] | None = None,
    ) -> None:
        self.world = agreed_world(strategy, world)
        if strategy is None and self.world.size > 1:
            raise ConfigError(
                f"rank {self.world.rank}: {self.world.size} ranks must agree on the steps of a stream; make the "
                "StreamSequence with strategy=dist_loader.init()"
            )
        self._source = Source(make, self.world, batched, sharded, endless=steps_per_epoch is not None)
        division = Division(
            self.world.size,
            device_batch,
            1 if strategy is None else strategy.replicas,
            remainder=remainder,
            steps_per_epoch=steps_per_epoch,
            shards=self.world.size if self._source.sharded else 0,
        )
        self.plan = division if global_batch is None else division.with_global_batch(global_batch)
        self.host_batch = host_batch
        self.threads = reading_threads(self.world) if threads is None else at_least_one("threads", threads)
        self.requests = 0  # items are drawn one after the other, by one thread
        self.failure: Exception | None = None
        number = next(_numbers[self.world])
        self._bad = BadItems(self._source, self.world, number, map, on_bad, bad_budget, bad_file)
        self._how = How(
            rank=self.world.rank,
            ranks=self.world.size,
            local_batch=self.plan.local_batch,
            sharded=self._source.sharded,
            drop=remainder == "drop",
            steps=steps_per_epoch,
            map=map,
            bad=self._bad,
            threads=self.threads,
            host_batch=host_batch,
            timeout=checked_seconds("timeout", timeout),
        )
        name = f"stream_{number}"
        self._gather: tuple[Gather, Gather] = _alone, _alone
        if strategy is not None:
            self._gather = strategy.devices.gatherer(name), strategy.devices.gatherer(f"{name}_texts")
        self._kind: tuple[Kind, Any] | None = None
        self._feeder: Feeder | None = None
        self._end_of_feeder: Callable[[], object] = lambda: None
        self._sessions = 0
        self._until = 0
        self._epoch = 0
        self._start = (0, 0)
        self._pass: object = None
        self._begun: tuple[Feeder, int, int] | None = None  # a pass that TensorFlow is about to draw
        self._trial = False
        self._blocked = False
        self._waited = 0.0
        self._draws = Draws()
        weakref.finalize(self, self._draws.end)

    # --- Keras's data adapter --------------------------------------------------------------------------------------

    @property
    def num_batches(self) -> None:
        """None: nobody knows."""
        return None

    @property
    def batch_size(self) -> int:
        """Samples in a batch of this process."""
        return self.plan.local_batch

    @property
    def has_partial_batch(self) -> bool:
        """Never: all batches are of one length."""
        return False

    @property
    def partial_batch_size(self) -> None:
        """None, for there is no partial batch."""
        return None

    def on_epoch_begin(self) -> None:
        """Called by Keras before every pass."""

    def on_epoch_end(self) -> None:
        """Called by Keras after every pass, and at other times."""

    def get_tf_dataset(self) -> Any:
        """The batches of an epoch as a `tf.data.Dataset`; called by Keras."""
        refuse_what_keras_would_ignore(self)
        if self.world.size > 1:
            refuse_unsynchronised_fit(self, self.world)
        steps = weakref.WeakMethod(self._steps)

        def steps_there(together: int) -> Iterator[tuple[int, int]]:
            found = steps()
            return iter(()) if found is None else found(together)

        take_steps_as_they_come(steps_there)
        return as_dataset(self._draws, self.get_numpy_iterator, self.example(), lambda array: array.shape)

    def _steps(self, together: int) -> Iterator[tuple[int, int]]:
        """Begin a pass of Keras's: its steps, so many at a time, each as soon as all ranks have agreed on it."""
        self._trial, self._pass = builds_model(), object()
        if (
            self._trial
        ):  # under tf.distribute, Keras draws a batch to build the model and drops the pass that it is from
            return iter([(0, 0)])
        epoch = self._epoch
        first = self.first_step(epoch)
        feeder = self._feeder_at(epoch, first)
        feeder.hold_at_least(together + HANDED_TO_TENSORFLOW_AHEAD)
        self._begun, self._waited = (feeder, epoch, first), 0.0
        return self._steps_from(feeder, epoch, first, together)

    def _steps_from(self, feeder: Feeder, epoch: int, first: int, together: int) -> Iterator[tuple[int, int]]:
        while self._there(feeder, epoch, first):
            last = first
            while last + 1 < first + together and self._there(feeder, epoch, last + 1):
                last += 1
            yield first, last
            first = last + 1
        if self._epoch == epoch:
            self._epoch = epoch + 1

    def _there(self, feeder: Feeder, epoch: int, step: int) -> bool:
        began = time.monotonic()
        self._blocked = True
        try:
            return feeder.wait(epoch, step)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self._blocked = False
            self._waited += time.monotonic() - began

    def get_numpy_iterator(self) -> Iterator[Any]:
        """The batches of the pass that Keras has begun; without one, those of the current epoch."""
        if self._trial:
            self._trial = False
            yield self.example()
            return
        begun, self._begun = self._begun, None
        bounded = begun is None
        if begun is None:
            first = self.first_step(self._epoch)
            begun = self._feeder_at(self._epoch, first), self._epoch, first
            self._pass = object()
        this_pass, (feeder, epoch, step) = self._pass, begun
        while feeder.wait(epoch, step, bounded):
            if self._pass is not this_pass:
                return  # Keras starts passes that it does not finish
            yield feeder.take(epoch, step)
            step += 1
        if bounded and self._epoch == epoch:
            self._epoch = epoch + 1

    def __iter__(self) -> Iterator[Any]:
        """The batches of the current epoch; then `epoch` moves on by one. All ranks go through them alike."""
        return self.get_numpy_iterator()

    @property
    def bad_samples(self) -> BadSamples:
        """The items that could not be mapped."""
        return self._bad.register

    # --- where it stands -------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """The epoch that the next pass is of, from 0."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def start_at(self, epoch: int, step: int) -> None:
        """Go on in the middle of an epoch. The items before are drawn and thrown away, without `map`."""
        self._epoch, self._start = epoch, (epoch, step)

    def first_step(self, epoch: int) -> int:
        """The step that a pass of an epoch begins at."""
        return self._start[1] if epoch == self._start[0] else 0

    def steps_in(self, epoch: int) -> int | None:
        """Steps of an epoch; None if it has not come to its end yet."""
        return None if self._feeder is None else self._feeder.known_steps(epoch)

    def samples_in(self, epoch: int) -> int | None:
        """Samples of all ranks in an epoch; None if it has not come to its end yet."""
        steps = self.steps_in(epoch)
        return None if steps is None else (steps - 1) * self.plan.global_batch + self.real_samples(epoch, steps - 1)

    def real_samples(self, epoch: int, step: int) -> int:
        """Samples of all ranks in a step that has been agreed on, the fill not counted."""
        return sum(self._counts(epoch, step))

    def _counts(self, epoch: int, step: int) -> tuple[int, ...]:
        full = (self.plan.local_batch,) * self.world.size
        if self._feeder is None or step + 1 != self.steps_in(epoch):
            return full
        return self._feeder.last_counts[epoch]

    # --- for the training ------------------------------------------------------------------------------------------

    def of_one_length(self) -> AbstractContextManager[None]:
        """Nothing to be done: all items are alike."""
        return nullcontext()

    def example(self) -> tuple[Any, ...]:
        """A batch to build a model with: it shows shapes and types, and is no part of any epoch.

        Raises:
            As a pass does.
        """
        try:
            feeder = self._feeder_at(self._epoch, self.first_step(self._epoch))
            kind, item = self._kind = self._kind or feeder.first_kind()
        except Exception as error:
            self.failure = error
            raise
        return Part(0, 0).for_keras(kind, item, self.plan.local_batch)

    def facts(self) -> dict[str, Any]:
        """What must be the same on all ranks."""
        on_bad, mapped = self.bad_samples.on_bad, self._how.map is not None
        return {**asdict(self.plan), "global_batch": self.plan.global_batch, "map": mapped, "on_bad": on_bad}

    def fingerprints(self) -> dict[str, str]:
        """What tells one training's data from another's. Of a stream that is all: it must be the same one."""
        return {"index fingerprint": "a stream"}

    def refuse_to_predict(self) -> None:
        """Raise if an epoch does not hold every sample once.

        Raises:
            ConfigError: the last step is dropped.
        """
        if self.plan.remainder == "drop":
            raise ConfigError('predict needs every sample; make the sequence with remainder="weight"')

    def rows_of(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The samples in the rows of this rank's batches in an epoch, and which rows are real, of one length.

        Samples are numbered step by step, rank by rank: where all ranks draw one stream, in its order.
        """
        local, rank = self.plan.local_batch, self.world.rank
        steps = self.steps_in(epoch) or 0
        counts = [self._counts(epoch, step) for step in range(steps)]
        starts = [self._start_of(epoch, step) for step in range(steps)]
        numbers = np.add.outer(np.array(starts, np.int64), np.arange(local, dtype=np.int64))
        real = np.arange(local) < np.array([found[rank] for found in counts], np.int64)[:, None]
        return numbers.reshape(-1), real.reshape(-1)

    def missing(self, epoch: int) -> set[int]:
        """The samples of this rank that could not be mapped in an epoch, numbered as in `rows_of`."""
        starts = {step: self._start_of(epoch, step) for step, _ in self._bad.rows_in(epoch)}
        return {starts[step] + row for step, row in self._bad.rows_in(epoch)}

    def _start_of(self, epoch: int, step: int) -> int:
        """The number of this rank's first sample in a step."""
        return step * self.plan.global_batch + sum(self._counts(epoch, step)[: self.world.rank])

    def name(self, number: int) -> str:
        """What a person would call a sample."""
        return f"sample {number} of the stream"

    def set_slices(self, slices: int) -> None:
        """Divide a device's part of the global batch into so many slices; what is in a batch stays as it is."""
        self.plan = self.plan.in_slices(slices)

    def waited(self, first: int, last: int, asked: float, now: float) -> tuple[float, float]:
        """Seconds that the steps since the last call were waited for, for they were not ready."""
        found, self._waited = self._waited, 0.0
        return found, found

    def waits_for(self, step: int) -> str | None:
        """What the step that is waited for lacks on this rank; None if it lacks nothing here."""
        return self._feeder.waits_for() if self._feeder is not None and self._blocked else None

    def reading_times(self) -> ReadingTimes:
        """Where the time of the drawing and mapping threads went since the stream was opened."""
        return ReadingTimes() if self._feeder is None else self._feeder.times

    def read_ahead_to(self, epochs: int | None) -> None:
        """Read ahead to the end of so many epochs and no further; None, as at first, to the end of this one."""
        self._until = epochs or 0
        if self._feeder is not None:
            self._feeder.read_ahead_to(self._until)

    def _feeder_at(self, epoch: int, step: int) -> Feeder:
        """What reads from a step on; another one than before if that stood elsewhere."""
        if self._feeder is not None and self._feeder.stands_at(epoch, step):
            return self._feeder
        self.close()
        self._feeder = Feeder(
            self._source, self._how, self._gather, self._sessions, (epoch, step), self._until, self._kind
        )
        self._sessions += 1
        self._end_of_feeder = weakref.finalize(self, self._feeder.close)
        return self._feeder

    def close(self) -> None:
        """Read no further, and close the user's generators. The next batch asked for opens the stream again."""
        self._pass = object()
        if self._feeder is not None:
            self._kind = self._kind or self._feeder.kind
            self._feeder = None
            self._end_of_feeder()


def _alone(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array
