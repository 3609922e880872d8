"""What rank 0 shows of a training while it runs."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

import keras

from dist_loader.training.clock import InputClock

Verbose = Literal["auto"] | int
Say = Callable[[str], object]

_SECONDS_BETWEEN_LINES = 10.0


def progress_callback(
    clock: InputClock, epochs: int, steps: int | None, verbose: Verbose, launcher: str
) -> keras.callbacks.Callback | None:
    """Keras's progress bar on a terminal (or verbose=1), plain lines elsewhere (or verbose=2), nothing for 0.

    Under a launcher lines are the rule: what looks like a terminal to a rank is the launcher's pipe.
    """
    if verbose == 0:
        return None
    if verbose == 1 or (verbose == "auto" and launcher == "none" and sys.stdout.isatty()):
        return ProgressBar(clock)
    return ProgressLines(clock, epochs, steps, functools.partial(print, flush=True))


class ProgressBar(keras.callbacks.ProgbarLogger):  # type: ignore[misc]
    """Keras's progress bar, which also shows samples a second and the share of time spent waiting for input."""

    def __init__(self, clock: InputClock) -> None:
        super().__init__()
        self._clock = clock

    def set_params(self, params: dict[str, Any]) -> None:
        # The bar is not Keras's own, so Keras was told to be silent; this one is to be heard.
        super().set_params({**params, "verbose": 1})

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        super().on_train_batch_end(batch, {**(logs or {}), **_speed(self._clock)})

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        super().on_epoch_end(epoch, {**(logs or {}), **_speed(self._clock)})


class ProgressLines(keras.callbacks.Callback):  # type: ignore[misc]
    """A line every ten seconds and one at the end of every epoch, for logs and pipes."""

    def __init__(self, clock: InputClock, epochs: int, steps: int | None, write: Callable[[str], object]) -> None:
        super().__init__()
        self._clock = clock
        self._write = write
        self._epochs = epochs
        self._steps = steps
        self._epoch = 0
        self._step = 0
        self._last_line = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._last_line = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._step = batch + 1
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._line(f"step {self._step}" if self._steps is None else f"step {self._step}/{self._steps}", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._line(f"step {self._steps or self._step}/{self._steps or self._step}", logs)

    def _line(self, where: str, logs: dict[str, float] | None) -> None:
        self._last_line = time.monotonic()
        shown = [f"{name} {_number(value)}" for name, value in (logs or {}).items()]
        if self._clock.images_per_second is not None and self._clock.input_wait_fraction is not None:
            shown.append(f"{self._clock.images_per_second:,.0f} {self._clock.unit}/s")
            shown.append(f"input wait {self._clock.input_wait_fraction:.1%}")
        self._write("  ".join([f"epoch {self._epoch + 1}/{self._epochs}", where, *shown]))


def _speed(clock: InputClock) -> dict[str, float]:
    if clock.images_per_second is None or clock.input_wait_fraction is None:
        return {}
    return {f"{clock.unit}/s": clock.images_per_second, "input_wait": clock.input_wait_fraction}


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
