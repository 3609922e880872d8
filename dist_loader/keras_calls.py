"""What Keras was called with, read from its own frames on the call stack, where it tells a data adapter nothing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from dist_loader.world import World


def builds_model() -> bool:
    """Whether Keras is drawing a batch only to build the model with it, as it does under tf.distribute."""
    return _frame("_maybe_symbolic_build") is not None


def refuse_what_keras_would_ignore(sequence: object) -> None:
    """Raise if Keras's `fit` or `evaluate` was called with targets or weights beside the sequence.

    Keras does not hand them to a custom data adapter, so it would leave them out without a word. Nothing but its
    own frame on the call stack knows of them.
    """
    for method in ("fit", "evaluate"):
        frame = _frame(method)
        given = {} if frame is None or frame.f_locals.get("x") is not sequence else frame.f_locals
        for name in ("y", "sample_weight", "class_weight"):
            if given.get(name) is not None:
                raise ConfigError(f"{method}({name}=...) would be ignored with this sequence; leave it out")


def refuse_unsynchronised_fit(sequence: object, world: World) -> None:
    """Raise if Keras's `fit` was called, on several ranks, on a model whose gradients would stay on their rank."""
    frame = _frame("fit")
    if frame is None or frame.f_locals.get("x") is not sequence:
        return
    model = frame.f_locals["self"]
    prepared = getattr(model.train_step, "prepared", None)
    if prepared is None or prepared.optimizer is not model.optimizer:
        raise ConfigError(
            f"model.fit on rank {world.rank} of {world.size} would train apart from the other ranks; "
            "write strategy.fit(model, train, ...) instead, where strategy = dist_loader.init()"
        )


def start_epoch_at(step: int) -> None:
    """Let the epoch that Keras's `fit` is about to begin start at a step; to be called in `on_epoch_begin`.

    Keras counts the steps of every epoch from 0. Its own loop over them is a method of the iterator that it made for
    the training (keras 3.15, `trainers/epoch_iterator.py`); for one epoch, another takes its place. When no step is
    left, the logs of the epoch are the metrics as they are.
    """
    frame = _frame("fit")
    assert frame is not None
    iterator, model = frame.f_locals["epoch_iterator"], frame.f_locals["self"]
    if "_enumerate_iterator" in vars(iterator):
        return  # it takes steps as they come, from where its sequence stands

    def rest_of_epoch() -> Iterator[tuple[int, int, Any]]:
        del iterator._enumerate_iterator
        iterator.data_adapter.on_epoch_begin()
        batches = iter(iterator._get_iterator())
        for first in range(step, iterator.num_batches, iterator.steps_per_execution):
            yield first, first + iterator.steps_per_execution - 1, batches
        iterator.data_adapter.on_epoch_end()

    iterator._enumerate_iterator = rest_of_epoch
    if step >= iterator.num_batches:
        _take_metrics_as_they_are(model)


def take_steps_as_they_come(steps: Callable[[int], Iterator[tuple[int, int]]]) -> None:
    """Let Keras's loop over an epoch, in whatever it was called for, take the steps that a function says there are.

    Keras would find out that there is no further step by running one: after its callbacks were told that it begins,
    with a warning, and, on several ranks, with a part of its messages under way. To be called in `get_tf_dataset`; all
    passes of the iterator that Keras is making are concerned (keras 3.15, `trainers/epoch_iterator.py`).

    Args:
        steps: called when a pass begins, with the number of steps that Keras runs in one call; gives the first and the
            last step of each call.
    """
    frame = _frame("__init__")
    while frame is not None and not hasattr(frame.f_locals.get("self"), "_enumerate_iterator"):
        frame = _frame("__init__", frame.f_back)
    if frame is None:
        return  # not Keras asked
    iterator = frame.f_locals["self"]

    def epoch() -> Iterator[tuple[int, int, Any]]:
        iterator.data_adapter.on_epoch_begin()
        found = steps(iterator.steps_per_execution)
        batches, none = iter(iterator._get_iterator()), True
        for first, last in found:
            none = False
            yield first, last, batches
        fit = _frame("fit")
        if none and fit is not None and fit.f_locals.get("epoch_iterator") is iterator:
            _take_metrics_as_they_are(fit.f_locals["self"])
        iterator.data_adapter.on_epoch_end()

    iterator._enumerate_iterator = epoch


def _take_metrics_as_they_are(model: Any) -> None:
    """Let the logs of the epoch that ends be the model's metrics, for there are none of a last step."""

    def metrics_as_they_are(_: Any) -> Any:
        del model._get_metrics_result_or_logs
        return model.get_metrics_result()

    model._get_metrics_result_or_logs = metrics_as_they_are


def _frame(function: str, frame: FrameType | None = None) -> FrameType | None:
    """The innermost call of a function of Keras on this thread's stack, from a frame outwards."""
    frame = frame or sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_globals.get("__name__", "").startswith("keras."):
            return frame
        frame = frame.f_back
    return None
