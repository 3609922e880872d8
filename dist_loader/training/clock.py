"""Where the time of a training goes: how many images a second, and how long the training waited for input."""

from __future__ import annotations

import time
from typing import Any

import keras

from dist_loader.pipeline import ReadingTimes
from dist_loader.training.bound import Waits
from dist_loader.training.feed import Feed


class InputClock(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells the sequences which epoch it is, and measures the steps.

    The first step of a training is left out of the measurement, for in it TensorFlow compiles.

    A step waited for input from when Keras asked for its batch until the sequence handed it over, if it was not
    handed over before. It was late as far as the sequence had been asked for it in that time.
    """

    def __init__(self, train: Feed, valid: Feed | None) -> None:
        super().__init__()
        self._sequences = [train] if valid is None else [train, valid]
        self._train = train
        self.unit = train.unit
        self.seconds = 0.0
        self.waited = 0.0
        self.late = 0.0
        self.samples = 0
        self.trained_samples = 0
        self._warm = False
        self._step_ended = 0.0
        self._asked = 0.0
        self._epoch = 0
        self._steps_done = 0
        self._times = ReadingTimes()

    def waits(self, rank: int) -> Waits:
        """What this rank waited for."""
        times, share = self._times, 1 / self._train.world.size
        return Waits(
            rank=rank,
            seconds=self.seconds,
            input=self.waited,
            late=self.late,
            reading=times.fetching,
            decoding=times.decoding,
            ring_full=times.ring_full,
            samples=times.samples,
            trained=int(self.samples * share / self._train.plan.passes),
            threads=self._train.threads,
            requests=self._train.requests,
        )

    @property
    def images_per_second(self) -> float | None:
        """Samples that all ranks together trained on in a second; None before the second step."""
        return self.samples / self.seconds if self.seconds > 0 else None

    @property
    def input_wait_fraction(self) -> float | None:
        """Share of the training's time in which this rank waited for input; None before the second step."""
        return min(1.0, self.waited / self.seconds) if self.seconds > 0 else None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for sequence in self._sequences:
            sequence.epoch = epoch
        self._epoch = epoch
        self._steps_done = self._train.first_step(epoch)
        self._step_ended = time.monotonic()

    def on_train_end(self, logs: Any = None) -> None:
        self._times = self._train.reading_times()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._asked = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        done = min(batch + 1, self._train.steps_in(self._epoch) or batch + 1)
        # `batch` is the last of several under steps_per_execution
        samples = sum(self._train.real_samples(self._epoch, step) for step in range(self._steps_done, done))
        waited, late = self._train.waited(self._steps_done, done - 1, self._asked, now)
        if self._warm:
            self.seconds += now - self._step_ended
            self.waited += waited
            self.late += late
            self.samples += samples
        self.trained_samples += samples
        self._warm = True
        self._steps_done = done
        self._step_ended = now
