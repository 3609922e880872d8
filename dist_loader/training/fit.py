"""Training: what a job needs around Keras's `fit`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.remote.address import local_folder
from dist_loader.sizes import at_least_one
from dist_loader.training.agreement import agree, facts_of, model_facts
from dist_loader.training.bound import Waits, what_bounds
from dist_loader.training.callbacks import StopTogether, for_this_rank
from dist_loader.training.checkpoint.checkpointer import Checkpointer
from dist_loader.training.checkpoint.folder import Folder
from dist_loader.training.checkpoint.position import Every, Position
from dist_loader.training.checkpoint.resume import Resumed, resume
from dist_loader.training.checkpoint.snapshot import shared_values
from dist_loader.training.checkpoint.writer import Writer, writing
from dist_loader.training.clock import InputClock
from dist_loader.training.device_batch import agreed_slices, follow, note_of, remember
from dist_loader.training.feed import Feed
from dist_loader.training.learning_rate import described
from dist_loader.training.prepare import Prepared, prepare, refuse_more_optimizers
from dist_loader.training.progress import ProgressLines, Say, Verbose, progress_callback
from dist_loader.training.retry import bind_retries
from dist_loader.training.signals import Signals
from dist_loader.training.statistics import StatisticsAverage
from dist_loader.training.summary import Summary, bad_samples_of_all
from dist_loader.training.watched import watched
from dist_loader.watchdog import Limits

_log = logging.getLogger("dist_loader")


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often a training is written down.

    Attributes:
        folder: of the checkpoints.
        every: how often.
        keep: how many stay, beside the best one.
        best: the figure that tells which is the best; None: the loss.
    """

    folder: Path
    every: Every
    keep: int
    best: str | None

    @classmethod
    def of(cls, folder: str | Path | None, every: int | str, keep: int, best: str | None) -> Checkpoints | None:
        """As a user gave them; None if there is no folder.

        Raises:
            ConfigError: a value that cannot be.
        """
        parsed = Every.of(every)
        at_least_one("checkpoint_keep", keep)
        if folder is None:
            return None
        # Absolute, for a callback may change the working folder.
        return cls(local_folder("checkpoint_dir", folder).absolute(), parsed, keep, best)


def train_model(
    devices: Devices,
    model: Any,
    train: Feed,
    valid: Feed | None,
    epochs: int,
    checkpoints: Checkpoints | None,
    grace: float,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: Verbose,
    limits: Limits | None,
) -> keras.callbacks.History:
    """What `Strategy.fit` does."""
    started = time.monotonic()
    world = devices.world
    say = functools.partial(print, flush=True) if world.chief and verbose != 0 else _log.info
    folder = Folder(checkpoints.folder) if checkpoints is not None and world.chief else None
    clean = folder.clear_parts if folder is not None else lambda: None
    with (
        _released(folder),
        watched(devices, "fit", limits, train, valid) as watch,
        original_errors(train, valid),
        devices.scope(),
        Signals(grace, clean) as signals,
    ):
        written = None if checkpoints is None else (checkpoints.every, checkpoints.best)
        agree(devices, facts_of(devices, train, valid, epochs, checkpoints=written))
        wishes = _prepared(devices, model, train, valid, say).wishes
        if world.size > 1 or checkpoints is not None:
            refuse_more_optimizers(model)
        wishes.forget()
        agree(devices, model_facts(model))
        resumed = Resumed() if checkpoints is None else resume(model, train, devices, folder)
        start = resumed.position
        if start > Position():
            say(f"going on from the checkpoint at {start}")
        devices.broadcast([*model.trainable_variables, *model.optimizer.variables])
        if resumed.state is None:
            devices.broadcast(model.non_trainable_weights)
        clock = InputClock(train, valid)
        remembering = [keras.callbacks.History(), *for_this_rank(callbacks, world)]
        running = [clock, StatisticsAverage(devices, trained=start.step > 0), *remembering]
        if not world.chief:
            running.append(ProgressLines(clock, epochs, train.num_batches, _log.info))
        elif (progress := progress_callback(clock, epochs, train.num_batches, verbose, world.launcher)) is not None:
            running.append(progress)
        running = watch.around(running)
        if world.size > 1:
            running.append(StopTogether(devices, wishes))
        train.start_at(start.epoch, start.step)
        for sequence in filter(None, (train, valid)):
            sequence.read_ahead_to(epochs)
        with _writer(folder, train, start, checkpoints) as writer:
            every, best = (None, None) if checkpoints is None else (checkpoints.every, checkpoints.best)
            weights = {} if resumed.state is None else shared_values(model)
            running.append(
                Checkpointer(devices, train, wishes, signals, resumed, weights, every, writer, remembering, best, say)
            )
            del weights  # the callback lets go of them, too, once the training has gone on
            history = model.fit(
                train,
                validation_data=valid,
                epochs=start.epoch if resumed.finished else epochs,
                initial_epoch=start.epoch,
                steps_per_epoch=train.num_batches,
                callbacks=running,
                verbose=0,
            )
        watch.agreeing()
        history.summary = _summary(devices, model, train, valid, clock, history, time.monotonic() - started)
    return history


@contextmanager
def _released(folder: Folder | None) -> Iterator[None]:
    try:
        yield
    finally:
        if folder is not None:
            folder.release()


@contextmanager
def _writer(
    folder: Folder | None, train: Feed, start: Position, checkpoints: Checkpoints | None
) -> Iterator[Writer | None]:
    if folder is None or checkpoints is None:
        yield None
        return
    facts = {"global_batch": train.plan.global_batch, "world_size": train.world.size}
    facts |= {name: value for name, value in train.facts().items() if name == "seed"}
    with writing(folder, train.steps_in, facts, start, checkpoints.keep) as writer:
        yield writer


def _prepared(devices: Devices, model: Any, train: Feed, valid: Feed | None, say: Say) -> Prepared:
    """Prepare a model for training, and find out the device batch if that is asked for."""

    def prepare_now() -> Prepared:
        test_slices = 1 if valid is None else valid.plan.accumulate
        return prepare(model, devices, train, train.plan.accumulate, test_slices, retries=train.finds_device_batch)

    now = prepare_now()
    if train.finds_device_batch:
        with train.of_one_length():
            batch = train.example()
        note = note_of(model, now, batch)
        train.set_slices(agreed_slices(model, now, batch, note, say))
        remember(note, train.plan.device_batch)
        follow(valid, train)
        now = prepare_now()
        bind_retries(model, train, valid, note, say)
    return now


def _summary(
    devices: Devices,
    model: Any,
    train: Feed,
    valid: Feed | None,
    clock: InputClock,
    history: keras.callbacks.History,
    seconds: float,
) -> Summary:
    world = devices.world
    own = np.zeros((world.size, len(dataclasses.fields(Waits))))
    own[world.rank] = dataclasses.astuple(clock.waits(world.rank))
    (rows,) = devices.sum_arrays([own])
    waits = [Waits(*row.tolist()) for row in rows]
    last = max(history.epoch, default=0)
    most = max(waits, key=lambda waits: waits.input_fraction)
    return Summary(
        strategy=devices.name,
        launcher=world.launcher,
        world_size=world.size,
        replicas=devices.replicas,
        samples=train.samples_in(last),
        val_samples=None if valid is None else valid.samples_in(last),
        epochs=max(history.epoch, default=-1) + 1,
        steps_per_epoch=train.steps_in(last),
        device_batch=train.plan.device_batch,
        global_batch=train.plan.global_batch,
        host_batch=train.host_batch,
        learning_rate=described(model.optimizer),
        images_per_second=clock.images_per_second,
        input_wait_fraction=most.input_fraction if clock.images_per_second is not None else None,
        bound=what_bounds(most, train.unit) if clock.images_per_second is not None else None,
        waits=tuple(waits),
        bad_samples=bad_samples_of_all(devices, [train] if valid is None else [train, valid]),
        seconds=seconds,
        metrics={name: float(values[-1]) for name, values in history.history.items() if values},
    )


@contextmanager
def original_errors(*sequences: Feed | None) -> Iterator[None]:
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
