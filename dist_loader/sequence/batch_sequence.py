"""The Keras face of the loader: the batches of one rank, as a `keras.utils.PyDataset`."""

from __future__ import annotations

import hashlib
import json
import os
import time
import weakref
from array import array
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import numpy.typing as npt
from keras.src.trainers.data_adapters.data_adapter import DataAdapter

from dist_loader.bad_samples import BadSamples, OnBad
from dist_loader.cores import reading_threads
from dist_loader.draws import Draws, as_dataset
from dist_loader.errors import ConfigError
from dist_loader.keras_calls import builds_model, refuse_unsynchronised_fit, refuse_what_keras_would_ignore
from dist_loader.plan import Plan, Remainder, refuse_passes
from dist_loader.sequence.augment import Augment, augmented
from dist_loader.sequence.balance import BalancedOrder, Shares
from dist_loader.sequence.batches import Batches, HostBatch
from dist_loader.sequence.weights import own_weights
from dist_loader.sizes import at_least_one, checked_seconds
from dist_loader.topology import Topology, agreed_world
from dist_loader.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dist_loader.pipeline import ReadingTimes
    from dist_loader.sequence.data import Data
    from dist_loader.sequence.order import Order


class BatchSequence(keras.utils.PyDataset, DataAdapter):  # type: ignore[misc]
    """Samples of any kind, batch by batch, in plan order, for one rank.

    What is special to a kind of data is in `Data`; the public classes (`ImageSequence`, ...) differ in how they make
    that.

    `sequence[step]` is the batch of a step of the current `epoch`: `(x, y)`, or `(x, y, weights)` when some step of the
    epoch is filled up (see `Plan`), or samples have weights; `(x,)` where there are no targets. Each is an array or a
    structure of arrays of shape (batch, ...), with batch = device_batch x replicas x slices, and slices = global_batch
    / (device_batch x replicas x world size), which is 1 unless a larger global batch is asked for. The weights are
    float32, shape (batch,) or, where parts of a sample have weights of their own, (batch, ...). The fill has weight 0
    (as -0.0). The real samples of a filled batch have their own weight, usually 1, times batch / real samples: Keras
    divides a weighted loss by the length of the batch, so their mean is exact.

    Keras's `fit`, `evaluate` and `predict` take it as it is. They get every step of an epoch once and in plan order:
    the sequence is its own data adapter, so `fit(shuffle=True)`, Keras's default, does not reorder its batches. When
    the last batch of an epoch is drawn, `epoch` moves on by one; it can also be set.

    Args:
        data: the samples and how they are read.
        device_batch: samples that one device computes at once; "auto", with a global_batch: as many as fit into its
            memory (`Strategy.fit` finds out).
        host_batch: decoded samples held in memory by this process: a number of samples, or a size such as "4GiB".
        strategy: what `dist_loader.init` returned; gives the world and the number of replicas.
        world: this process among all, where there is no strategy. With neither, it is detected.
        seed: of the shuffling, the same on every rank.
        shuffle: another order in every epoch; False keeps that of the index.
        remainder: what becomes of a last step that is not full: "weight", "drop" or "wrap" (see `Plan`).
        global_batch: samples behind one update, a multiple of device_batch x replicas x world size; by default just
            that. A device computes its part of a larger one in slices of device_batch, one after the other.
        sample_weight: a weight of 0 or more for every sample, shape (samples,).
        class_weight: a weight of 0 or more by label; 1 for a label that is not there.
        threads: threads that read; by default, this rank's share of the cores that the host or the container has.
        timeout: seconds after which a batch that is not ready is an error.
        on_bad: what becomes of a sample that cannot be read (docs/bad_samples.md). "raise": a `SampleError`.
            "replace": another sample, its label included, takes its place. "weight0": its place has weight 0, and the
            others' mean is exact; batches then always come with weights.
        bad_budget: how many samples may be bad before the job stops: a number (int), or a share of all (float). By
            default 1%, but of few samples up to 16 (never more than half).
        bad_file: where each bad sample is written down once, for all ranks and runs; `Strategy.fit` and launch/train.py
            have one by default.
        host_passes: how often a training goes over half of the host batch before it goes on to what was read
            meanwhile into the other half; an epoch has so many times the steps (docs/host_passes.md).
        class_shares: shares of an epoch by label, or "equal": rare classes are drawn more often (docs/labels.md).
        epoch_samples: samples in an epoch with class_shares; None: as many as there are.
        augment: changes each sample after it was read: from (x, y, rng) to (x, y) (docs/augmentation.md).
        augment_batch: likewise, a device batch at a time.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do.
    """

    unit = "samples"  # what a training counts in a second

    def __init__(
        self,
        data: Data,
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        *,
        strategy: Topology | None = None,
        world: World | None = None,
        seed: int = 0,
        shuffle: bool = True,
        remainder: Remainder = "weight",
        global_batch: int | None = None,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: Mapping[int, float] | None = None,
        threads: int | None = None,
        timeout: float = 300.0,
        on_bad: OnBad = "raise",
        bad_budget: float | None = None,
        bad_file: str | os.PathLike[str] | None = None,
        host_passes: int = 1,
        class_shares: Shares | None = None,
        epoch_samples: int | None = None,
        augment: Augment | None = None,
        augment_batch: Augment | None = None,
        order: Order | None = None,
    ) -> None:
        super().__init__(workers=1)
        self.samples = data.samples
        self.recipe = f"{data.recipe}, on_bad {on_bad}{_named(augment=augment, augment_batch=augment_batch)}"
        if class_shares is not None:
            if self.samples.labels is None or order is not None:
                raise ConfigError("class_shares is for samples with one integer label each, in no other order")
            order = BalancedOrder(self.samples.labels, class_shares, epoch_samples, seed, shuffle)
        elif epoch_samples is not None:
            raise ConfigError(f"epoch_samples={epoch_samples!r} without class_shares: an epoch is every sample once")
        self.world = agreed_world(strategy, world)
        self._has_peers = self.world.size > 1 and (strategy is not None or world is None)
        replicas = 1 if strategy is None else strategy.replicas
        self.finds_device_batch = device_batch == "auto"
        if device_batch == "auto":
            if augment_batch is not None:
                raise ConfigError('augment_batch needs a device_batch that is a number, not "auto"')
            device_batch = _largest_device_batch(global_batch, replicas * self.world.size)
        plan = Plan(
            samples=len(self.samples) if order is None else order.draws,
            world_size=self.world.size,
            device_batch=device_batch,
            replicas=replicas,
            seed=seed,
            shuffle=shuffle,
            remainder=remainder,
        )
        if global_batch is not None:
            plan = plan.with_global_batch(global_batch)
        self.order = order = order if data.order is None else data.order(plan, order)
        self.own_weights = own_weights(self.samples, sample_weight, class_weight)
        self.host_batch = host_batch
        self.threads = reading_threads(self.world) if threads is None else at_least_one("threads", threads)
        self.requests = data.threads or self.threads
        self.failure: Exception | None = None  # what ended the last pass, for whoever sees TensorFlow's version of it
        self.bad_samples = BadSamples(self.samples, on_bad, bad_budget, seed, self.world.rank, bad_file)
        data, of_batches = augmented(data, augment, augment_batch, seed, plan.device_batch)
        self._data = data
        self._batches = Batches(
            data,
            plan,
            self.world.rank,
            order,
            self.bad_samples,
            self.own_weights,
            HostBatch(host_batch, host_passes, self.requests, checked_seconds("timeout", timeout)),
            of_batches,
        )
        self._epoch = 0
        self._pass: object = None
        self._trial = False
        self._first: tuple[int, int, Any] | None = None  # an epoch's, a step's batch that was looked at, not delivered
        self._start = (0, 0)
        self._drawn, self._delivered = array("d"), array("d")  # when each of the latest pass's batches was
        self._delivered_from = 0
        self._draws = Draws()
        weakref.finalize(self, self._draws.end)

    @property
    def plan(self) -> Plan:
        """Which samples are this rank's at a step."""
        return self._batches.plan

    @property
    def epoch(self) -> int:
        """The epoch that `sequence[step]` speaks of, from 0."""
        return self._epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        """Steps in an epoch, the same on every rank."""
        return self.plan.steps

    @property
    def num_batches(self) -> int:
        """Steps in an epoch; Keras's name for it."""
        return self.plan.steps

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

    def __getitem__(self, step: int) -> tuple[Any, ...]:
        """The batch of a step of the current epoch.

        Raises:
            IndexError: the epoch has no such step.
            SampleError: a sample could not be read; it names the rank, the path and the reason.
            TooManyBadSamples: more of them than `bad_budget` allows.
            ReadTimeout: the batch was not ready within `timeout` seconds.
        """
        if not -len(self) <= step < len(self):
            raise IndexError(f"step {step} is not in [0, {len(self)})")
        return self._batches.batch(self._epoch, step % len(self))

    def numbers(self, epoch: int, step: int) -> npt.NDArray[np.int64]:
        """The samples of this rank at a step of an epoch, int64, shape (batch,), fill included."""
        return self._batches.numbers(epoch, step)

    def missing(self, epoch: int) -> set[int]:
        """The samples that could not be read in an epoch, so far: the latest epoch of which a batch was asked for."""
        return self._batches.missing(epoch)

    def name(self, number: int) -> str:
        """What a person would call a sample, such as its path."""
        return self._data.reader.name(number)

    def start_at(self, epoch: int, step: int) -> None:
        """Go on in the middle of an epoch: its passes begin at a step, those of other epochs at 0."""
        self._epoch, self._start = epoch, (epoch, step)

    def first_step(self, epoch: int) -> int:
        """The step that a pass of an epoch begins at."""
        return self._start[1] if epoch == self._start[0] else 0

    @contextmanager
    def of_one_length(self) -> Iterator[None]:
        """Batches as long as the longest of all meanwhile, where they have different lengths otherwise."""
        before, self._batches.one_length = self._batches.one_length, True
        try:
            yield
        finally:
            self._batches.one_length = before

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch."""
        return self.plan.steps

    def samples_in(self, epoch: int) -> int:
        """Samples that there are."""
        return len(self.samples)

    def real_samples(self, epoch: int, step: int) -> int:
        """How many of a step's global batch count, on all ranks."""
        return self.plan.real_samples(step)

    def example(self) -> tuple[Any, ...]:
        """A batch that shows shapes and types: the first one."""
        return self[0]

    def facts(self) -> dict[str, Any]:
        """What must be the same on all ranks."""
        by_sample, by_label = (getattr(self.own_weights, name, None) for name in ("by_sample", "by_label"))
        data = self.fingerprints()
        return {
            "samples": len(self.samples),
            "classes": json.dumps(self.samples.classes),
            "index": data["index fingerprint"],
            "order": data["order"],
            **{name: value for name, value in asdict(self.plan).items() if name != "samples"},
            "global_batch": self.plan.global_batch,
            "pixels": self.recipe,
            "weights by_sample": "none" if by_sample is None else _digest(by_sample.tobytes()),
            "weights by_label": "none" if by_label is None else by_label.tolist(),
        }

    def fingerprints(self) -> dict[str, str]:
        """What tells one training's data from another's."""
        order = "of the plan" if self.order is None else self.order.fingerprint
        return {"index fingerprint": self.samples.fingerprint, "order": order}

    def refuse_to_predict(self) -> None:
        """Raise if an epoch does not hold every sample once.

        Raises:
            ConfigError: it drops samples, or goes over them several times.
        """
        plan = self.plan
        if plan.remainder == "drop" and plan.samples % plan.global_batch:
            raise ConfigError('predict needs every sample; make the sequence with remainder="weight"')
        refuse_passes("predict", plan.passes)
        if self.order is not None and not self.order.exactly_once:
            raise ConfigError("predict needs every sample once; make the sequence without an order that draws them")

    def rows_of(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The samples in the rows of this rank's batches, and which of them are not there for the second time."""
        plan = self.plan
        # By position and not by weight: a wrapped-round sample has weight 1, and has been there before.
        first = [step * plan.global_batch + self.world.rank * plan.local_batch for step in range(plan.steps)]
        real = np.concatenate([np.arange(at, at + plan.local_batch) < plan.samples for at in first])
        return np.concatenate([self.numbers(epoch, step) for step in range(plan.steps)]), real

    def set_slices(self, slices: int) -> None:
        """Divide a device's part of the global batch into so many slices; what is in a batch stays as it is."""
        self._batches.set_slices(slices)

    def reading_times(self) -> ReadingTimes:
        """Where the time of the reading threads went since the window was opened."""
        return self._batches.times()

    def read_ahead_to(self, epochs: int | None) -> None:
        """Read ahead to the end of so many epochs and no further; None, as at first, to the end of the next epoch."""
        self._batches.last_epoch = epochs

    def close(self) -> None:
        """Stop reading ahead and give the host batch's memory back. The next batch asked for starts it again."""
        self._first = None
        self._batches.close()

    def on_epoch_begin(self) -> None:
        """Called by Keras before every pass. A subclass with an `on_epoch_begin` of its own calls this one, too."""
        super().on_epoch_begin()
        # Under tf.distribute, Keras draws a batch to build the model and drops the pass that it is from.
        self._trial = builds_model()

    def get_tf_dataset(self) -> Any:
        """One epoch as a `tf.data.Dataset`; called by Keras."""
        refuse_what_keras_would_ignore(self)
        if self._has_peers:
            refuse_unsynchronised_fit(self, self.world)
        step = self.first_step(self._epoch) % len(self)
        self._first = self._epoch, step, self[step]
        return as_dataset(self._draws, self._one_pass, self._first[2], self._shape)

    def _shape(self, array: npt.NDArray[Any]) -> tuple[int | None, ...]:
        """Of an array in all batches; None where it is not the same in each."""
        varies = self._batches.varies and array.ndim > 1
        return (array.shape[0], None, *array.shape[2:]) if varies else array.shape

    def waited(self, first: int, last: int, asked: float, now: float) -> tuple[float, float]:
        """Seconds that steps of the latest pass waited until Keras had their batches, and of these, for the loader.

        The rest went by before TensorFlow drew the batches.

        Args:
            first: of the steps, which were done at once.
            last: of them.
            asked: when Keras asked for their batches, in seconds of `time.monotonic`.
            now: when they were done.
        """
        until = min(now, self.delivered_at(last))
        draws = [(self._drawn[step - self._delivered_from], self.delivered_at(step)) for step in range(first, last + 1)]
        late = sum(max(0.0, min(until, delivered) - max(asked, drawn)) for drawn, delivered in draws)
        return max(0.0, until - asked), late

    def delivered_at(self, step: int) -> float:
        """When the batch of a step of the latest pass was handed to Keras, in seconds of `time.monotonic`."""
        return self._delivered[step - self._delivered_from]

    def waits_for(self, step: int) -> str | None:
        """What the batch of a step still waits for; None if it was handed to Keras, or was not asked for yet.

        Keras asks for its first batch after TensorFlow has compiled the step.
        """
        return None if step < self._delivered_from + len(self._delivered) else self._batches.waits_for()

    def get_numpy_iterator(self) -> Iterator[Any]:
        """One epoch's batches."""
        return self._one_pass()

    def _one_pass(self) -> Iterator[Any]:
        """The current epoch's batches in order, then on to the next epoch.

        Keras starts passes that it does not finish, and looks at a batch before the first. Only the pass that was
        started last goes on, and the batch that was looked at is not read twice.
        """
        epoch, this_pass = self._epoch, object()
        first, drawn, delivered = self.first_step(epoch), array("d"), array("d")
        self._pass, self._drawn, self._delivered, self._delivered_from = this_pass, drawn, delivered, first
        try:
            if self._trial:
                if self._first is None:
                    self._first = epoch, 0, self[0]
                yield self._first[2]
                return
            for step in range(first, len(self)):
                if self._pass is not this_pass:
                    return
                drawn.append(time.monotonic())
                seen, self._first = self._first, None
                batch = seen[2] if seen is not None and seen[:2] == (epoch, step) else self[step]
                delivered.append(time.monotonic())
                if step + 1 == len(self) and self._epoch == epoch:
                    # Not after the yield: Keras may start the next pass before this one is asked for more.
                    self._epoch = epoch + 1
                yield batch
                del seen, batch  # or their frame would be held while the next batch is waited for
        except Exception as error:
            self.failure = error
            raise


def _largest_device_batch(global_batch: int | None, devices: int) -> int:
    if global_batch is None:
        raise ConfigError('device_batch="auto" needs a global_batch, which must not depend on a device\'s memory')
    if isinstance(global_batch, bool) or not isinstance(global_batch, int | np.integer) or global_batch % devices:
        raise ConfigError(f"global_batch must be a multiple of the {devices} devices, not {global_batch!r}")
    return max(1, int(global_batch) // devices)


def _named(**functions: Any) -> str:
    """The functions that are given, by name, for ranks to compare."""
    given = {
        name: getattr(function, "__qualname__", type(function).__name__)
        for name, function in functions.items()
        if function
    }
    return "".join(f", {name} {function}" for name, function in given.items())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=6).hexdigest()
