"""The public face of training: devices, and Keras's `fit` and `evaluate` on them."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.devices.averaging import Compression
from dist_loader.devices.horovod import HorovodDevices
from dist_loader.devices.mirrored import MirroredDevices
from dist_loader.devices.single import SingleDevice
from dist_loader.errors import ConfigError
from dist_loader.sequence import ImageSequence
from dist_loader.training.bound import Waits, what_bounds
from dist_loader.training.callbacks import StopTogether, for_this_rank
from dist_loader.training.checkpoint import CheckpointWriter, restore
from dist_loader.training.clock import InputClock
from dist_loader.training.device_batch import agreed_slices, follow, note_of, remember
from dist_loader.training.learning_rate import described
from dist_loader.training.predict import in_index_order, local_outputs, save_outputs
from dist_loader.training.prepare import Prepared, prepare, prepared
from dist_loader.training.progress import ProgressLines, Say, Verbose, progress_callback
from dist_loader.training.retry import bind_retries
from dist_loader.training.statistics import StatisticsAverage
from dist_loader.training.summary import Summary
from dist_loader.world import World

_log = logging.getLogger("dist_loader")

Name = Literal["auto", "single", "mirrored", "horovod", "multiworker"]


def init(name: Name = "auto", compression: Compression = "none") -> Strategy:
    """Find out where this process runs, and join the others.

    To be called first, before TensorFlow is used for anything else.

    Args:
        name: `"horovod"`: one process per device, started by horovodrun, mpirun or srun. `"mirrored"`: one process,
            every local GPU (or logical CPU device). `"single"`: one device. `"auto"`: Horovod under a launcher, else
            mirrored if there are several GPUs, else single. `"multiworker"` is refused, with the reason.
        compression: of the gradients between the ranks: `"fp16"` and `"bf16"` halve what is sent and round to 11 and 8
            bits. Gradients beyond 65504 become infinite in fp16, which `LossScaleOptimizer` notices and others do not.

    Raises:
        ConfigError: an unknown name or compression, a strategy that cannot work here, or one that is not installed.
    """
    if name not in get_args(Name):
        raise ConfigError(f"strategy must be one of {', '.join(get_args(Name))}, not {name!r}")
    if compression not in get_args(Compression):
        raise ConfigError(f"compression must be one of {', '.join(get_args(Compression))}, not {compression!r}")
    if name == "multiworker":
        raise ConfigError(
            "Keras 3 cannot train under tf.distribute.MultiWorkerMirroredStrategy: its trainer fails in two places "
            '(keras#20585); start one process per GPU with horovodrun or mpirun and use strategy "horovod"'
        )
    if keras.backend.backend() != "tensorflow":
        raise ConfigError(f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow before importing it")
    world = World.detect()
    if name == "auto":
        if world.launcher != "none":
            name = "horovod"
        else:
            name = "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "single"
    if name == "horovod":
        return Strategy(HorovodDevices.started(world, compression))
    return Strategy(MirroredDevices.on_local_devices(world) if name == "mirrored" else SingleDevice(world))


@dataclass(frozen=True)
class Strategy:
    """Trains and evaluates Keras models on the devices of all ranks together.

    Attributes:
        devices: how a step runs; what `init` found.
    """

    devices: Devices

    @property
    def name(self) -> str:
        """`"single"`, `"mirrored"` or `"horovod"`."""
        return self.devices.name

    @property
    def world(self) -> World:
        """This process among all."""
        return self.devices.world

    @property
    def replicas(self) -> int:
        """Devices that this process drives."""
        return self.devices.replicas

    def scope(self) -> AbstractContextManager[Any]:
        """Build and compile models inside of it."""
        return self.devices.scope()

    def fit(
        self,
        model: keras.Model,
        train: ImageSequence,
        validation_data: ImageSequence | None = None,
        epochs: int = 1,
        checkpoint_dir: str | Path | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: Verbose = "auto",
    ) -> keras.callbacks.History:
        """Train a compiled model; every rank calls this alike.

        Gradients, losses and metrics are those of one process over the same global batches. All ranks start from
        rank 0's weights.

        Args:
            model: built (or at least compiled) inside of `scope()`.
            train: this rank's part of the training samples.
            validation_data: this rank's part of the validation samples, evaluated after every epoch.
            epochs: to train in all.
            checkpoint_dir: where rank 0 saves weights, optimizer and loader state after every epoch, and from where
                a training that was broken off goes on.
            callbacks: Keras callbacks, called on every rank, with the numbers of all ranks together.
            verbose: of rank 0. 1: a progress bar; 2: lines; 0: nothing; "auto": a bar on a terminal, else lines. The
                other ranks write their lines to the logger "dist_loader".

        Returns:
            Keras's History, with the attribute `summary` (a `Summary`).

        Raises:
            ConfigError: something that cannot work, found before the training starts.
            SampleError: an image could not be read.
        """
        started = time.monotonic()
        for sequence in filter(None, (train, validation_data)):
            self._check(sequence)
        chief = self.world.chief
        with _original_errors(train, validation_data), self.scope():
            say = functools.partial(print, flush=True) if chief and verbose != 0 else _log.info
            stop = self._prepare(model, train, validation_data, say).stop
            done = restore(model, checkpoint_dir, train) if checkpoint_dir is not None and chief else 0
            done = int(self.devices.sum_arrays([np.array([done])])[0][0])
            self.devices.broadcast([*model.weights, *model.optimizer.variables])
            clock = InputClock(train, validation_data)
            running = [clock, StatisticsAverage(self.devices), *for_this_rank(callbacks, self.world)]
            if chief and checkpoint_dir is not None:
                running.append(CheckpointWriter(checkpoint_dir, train))
            if not chief:
                running.append(ProgressLines(clock, epochs, len(train), _log.info))
            elif (progress := progress_callback(clock, epochs, len(train), verbose, self.world.launcher)) is not None:
                running.append(progress)
            if self.world.size > 1:
                running.append(StopTogether(self.devices, stop))
            train.epoch = done
            for sequence in filter(None, (train, validation_data)):
                sequence.read_ahead_to(epochs)
            history = model.fit(
                train,
                validation_data=validation_data,
                epochs=epochs,
                initial_epoch=done,
                steps_per_epoch=len(train),
                callbacks=running,
                verbose=0,
            )
        history.summary = self._summary(model, train, validation_data, clock, history, done, time.monotonic() - started)
        return history

    def evaluate(self, model: keras.Model, sequence: ImageSequence, return_dict: bool = True) -> Any:
        """Loss and metrics of a compiled model over all samples of all ranks; every rank calls this alike.

        Returns:
            A dictionary of floats by name, the same on every rank; or with `return_dict=False` a list, as Keras does.

        Raises:
            ConfigError: something that cannot work.
            SampleError: an image could not be read.
        """
        self._check(sequence)
        with _original_errors(sequence), self.scope():
            before = prepared(model)
            known = before if before is not None and before.devices == self.devices else None
            prepare(
                model,
                self.devices,
                sequence,
                slices=1 if known is None else known.slices,
                test_slices=sequence.plan.accumulate,
                retries=known is not None and known.retries,
            )
            sequence.read_ahead_to(sequence.epoch + 1)
            return model.evaluate(sequence, verbose=0, return_dict=return_dict)

    def predict(self, model: keras.Model, sequence: ImageSequence, out_dir: str | Path | None = None) -> Any:
        """A model's outputs for every sample, each computed once; every rank calls this alike.

        Args:
            model: a built Keras model.
            sequence: this rank's part of the samples.
            out_dir: for outputs too large for rank 0's memory: every rank writes its own to `outputs-rank-N.npy` there
                (`outputs-M-rank-N.npy` for output M of several), and their sample numbers to `numbers-rank-N.npy`.

        Returns:
            On rank 0, without `out_dir`, the outputs in the order of the index: an array of shape (samples, ...), or a
            structure of them. None elsewhere.

        Raises:
            ConfigError: something that cannot work, or a sequence whose last batch is dropped.
            SampleError: an image could not be read.
        """
        self._check(sequence)
        with _original_errors(sequence), self.scope():
            sequence.read_ahead_to(sequence.epoch + 1)
            numbers, outputs = local_outputs(model, sequence)
        if out_dir is not None:
            save_outputs(numbers, outputs, Path(out_dir), self.world.rank)
            return None
        return in_index_order(self.devices, sequence, numbers, outputs)

    def _prepare(self, model: Any, train: ImageSequence, valid: ImageSequence | None, say: Say) -> Prepared:
        """Prepare a model for training, and find out the device batch if that is asked for."""

        def prepare_now() -> Prepared:
            test_slices = 1 if valid is None else valid.plan.accumulate
            return prepare(
                model, self.devices, train, train.plan.accumulate, test_slices, retries=train.finds_device_batch
            )

        now = prepare_now()
        if train.finds_device_batch:
            batch = train[0]
            note = note_of(model, now, batch)
            train.set_slices(agreed_slices(model, now, batch, note, say))
            remember(note, train.plan.device_batch)
            follow(valid, train)
            now = prepare_now()
            bind_retries(model, train, valid, note, say)
        return now

    def _check(self, sequence: ImageSequence) -> None:
        if not isinstance(sequence, ImageSequence):
            raise ConfigError(f"expected a dist_loader sequence, got {type(sequence).__name__}")
        if (sequence.world, sequence.plan.replicas) != (self.world, self.replicas):
            raise ConfigError(
                f"a sequence for {sequence.world} with {sequence.plan.replicas} replicas cannot feed {self.world} with "
                f"{self.replicas}; make it with strategy=strategy"
            )

    def _summary(
        self,
        model: Any,
        train: ImageSequence,
        valid: ImageSequence | None,
        clock: InputClock,
        history: keras.callbacks.History,
        epochs_before: int,
        seconds: float,
    ) -> Summary:
        own = np.zeros((self.world.size, len(dataclasses.fields(Waits))))
        own[self.world.rank] = dataclasses.astuple(clock.waits(self.world.rank))
        (rows,) = self.devices.sum_arrays([own])
        waits = [Waits(*row.tolist()) for row in rows]
        most = max(waits, key=lambda waits: waits.input_fraction)
        return Summary(
            strategy=self.name,
            launcher=self.world.launcher,
            world_size=self.world.size,
            replicas=self.replicas,
            samples=len(train.index),
            val_samples=None if valid is None else len(valid.index),
            epochs=epochs_before + len(history.epoch),
            steps_per_epoch=len(train),
            device_batch=train.plan.device_batch,
            global_batch=train.plan.global_batch,
            host_batch=train.host_batch,
            learning_rate=described(model.optimizer),
            images_per_second=clock.images_per_second,
            input_wait_fraction=most.input_fraction if clock.input_wait_fraction is not None else None,
            bound=what_bounds(most) if clock.input_wait_fraction is not None else None,
            waits=tuple(waits),
            bad_samples=0,
            seconds=seconds,
            metrics={name: float(values[-1]) for name, values in history.history.items() if values},
        )


@contextmanager
def _original_errors(*sequences: ImageSequence | None) -> Iterator[None]:
    """Raise what a sequence raised, not TensorFlow's report of it; and stop reading ahead when all is done."""
    present = [sequence for sequence in sequences if sequence is not None]
    for sequence in present:
        sequence.failure = None
    try:
        yield
    except tf.errors.OpError:
        for sequence in present:
            if sequence.failure is not None:
                raise sequence.failure from None
        raise
    finally:
        for sequence in present:
            sequence.read_ahead_to(None)
            sequence.close()
