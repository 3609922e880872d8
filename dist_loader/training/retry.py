"""A train function that goes on, in smaller slices, when a device runs out of memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from dist_loader.errors import ConfigError
from dist_loader.training.device_batch import follow, remember
from dist_loader.training.feed import Feed
from dist_loader.training.memory import changed_by_slices, ran_out, smaller
from dist_loader.training.prepare import assign, prepare, prepared, states_to_sum
from dist_loader.training.progress import Say

Function = Callable[[Any], Any]


def bind_retries(model: Any, train: Feed, valid: Feed | None, note: Path, say: Say) -> None:
    """Let the train function of a prepared model do a step again that a device, of any rank, had no memory for.

    Args:
        model: a prepared model.
        train: what it is trained on; learns of smaller slices.
        valid: what it is evaluated on; if it has no device batch of its own, it follows.
        note: where to remember what fits.
        say: gets a line for people.
    """
    steps = _Steps(model, train, valid, note, say)
    model.make_train_function = functools.partial(_make_train_function, model, steps)
    model.train_function = None


def _make_train_function(model: Any, steps: _Steps, force: bool = False) -> Function:
    """What Keras's own `make_train_function` does; steps are drawn one by one."""
    if model.train_function is None or force:

        def train_function(iterator: Any) -> Any:
            logs = None
            for _, data in zip(range(model.steps_per_execution), iterator, strict=False):
                logs = steps.run(data)
            if logs is None:
                raise StopIteration
            return logs

        model.train_function = train_function
    function: Function = model.train_function
    return function


class _Steps:
    """The steps of a training, each computed until it is."""

    def __init__(self, model: Any, train: Feed, valid: Feed | None, note: Path, say: Say) -> None:
        self._model = model
        self._train = train
        self._valid = valid
        self._note = note
        self._say = say
        self._compiled = _compiled(model)

    def run(self, data: Any) -> Any:
        """The logs of one step.

        Raises:
            ConfigError: a rank has no memory for one sample, or ran out when the others had gone on.
        """
        before = [(variable, tf.convert_to_tensor(variable.value)) for variable in changed_by_slices(self._model)]
        while True:
            logs, number, who = self._attempt(data)
            if not number:
                return logs
            self._model.reset_metrics()  # some may have been made in this very step
            assign(*zip(*before, strict=True))
            self._halve(number, who)

    def _attempt(self, data: Any) -> tuple[Any, int, int | None]:
        """The logs, how many ranks had no memory for the step, and which, if it was one."""
        now = prepared(self._model)
        assert now is not None
        devices = now.devices
        now.alarm.begin()
        try:
            logs = self._compiled(iter([data]))
        except Exception as error:
            if not ran_out(error):
                raise
            if devices.world.size == 1:
                return None, 1, 0
            if now.alarm.too_late():
                raise ConfigError(
                    f"rank {devices.world.rank} ran out of memory in an update that the other ranks made; "
                    "give device_batch a smaller number"
                ) from error
            now.alarm.raise_in_place_of_step(devices, states_to_sum(self._model))
            return None, *now.alarm.raised()
        return logs, *(now.alarm.raised() if devices.world.size > 1 else (0, None))

    def _halve(self, number: int, who: int | None) -> None:
        plan, now = self._train.plan, prepared(self._model)
        assert now is not None
        world = now.devices.world
        short = "the device" if world.size == 1 else f"{number} ranks" if who is None else f"rank {who}"
        slices = smaller(plan.device_rows, plan.accumulate)
        if slices is None:
            raise ConfigError(f"{short} ran out of memory with one sample at once")
        self._say(
            f"{short} ran out of memory with {plan.device_batch} samples at once; going on with "
            f"{plan.device_rows // slices}, the global batch stays {plan.global_batch}"
        )
        self._train.set_slices(slices)
        remember(self._note, self._train.plan.device_batch)
        test_slices = follow(self._valid, self._train)
        running = self._model.train_function
        prepare(self._model, now.devices, self._train, slices, test_slices, retries=True)
        self._model.train_function = running  # Keras is in the middle of it
        self._compiled = _compiled(self._model)


def _compiled(model: Any) -> Function:
    """Keras's function for a step; it takes an iterator, and draws from it once if it is not TensorFlow's."""
    function: Function = model._make_function(model.train_step)
    return function
