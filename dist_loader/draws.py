"""TensorFlow's threads that draw batches out of Python, and their way home when the program ends."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HANDED_TO_TENSORFLOW_AHEAD = 2  # batches; what is behind holds the rest of what is read ahead

_MOST_SECONDS = 5.0
# TensorFlow stays in Python after a draw, to convert what was drawn or to report what was raised: milliseconds, more
# on a busy machine. Nothing tells when it has left.
_QUIET_SECONDS = 0.2


class Draws:
    """TensorFlow's threads that draw batches from a sequence, and how they are sent home when the program ends.

    A thread that is inside of Python when the interpreter ends never comes back, and TensorFlow, clearing up, would
    wait for it for ever.
    """

    def __init__(self) -> None:
        self._over = False
        self._inside: set[object] = set()  # passes in which a batch is being drawn right now
        self._left = -_QUIET_SECONDS  # when a draw ended last, in seconds of time.monotonic

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, as long as the program goes on."""
        this_pass = object()
        self._inside.add(this_pass)
        try:
            while not self._over:
                batch = next(batches, None)
                if batch is None:
                    return
                self._leave(this_pass)
                yield batch
                del batch  # or its frame would be held while the next one is waited for
                self._inside.add(this_pass)
        finally:
            self._leave(this_pass)

    def _leave(self, this_pass: object) -> None:
        self._inside.discard(this_pass)
        self._left = time.monotonic()

    def end(self) -> None:
        """Draw no more, and wait until nobody draws; called at the end of the program, after the window was closed."""
        self._over = True
        deadline = time.monotonic() + _MOST_SECONDS
        while self._inside or time.monotonic() < self._left + _QUIET_SECONDS:
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)


def as_dataset(draws: Draws, one_pass: Callable[[], Iterator[Any]], batch: Any, shape: Callable[[Any], Any]) -> Any:
    """One epoch as a `tf.data.Dataset`, for Keras.

    Args:
        draws: watches the threads that draw.
        one_pass: a method of the sequence, which makes the epoch's batches.
        batch: one like all of them.
        shape: from an array of it to its shape in all batches.
    """
    import tensorflow as tf

    spec = keras.tree.map_structure(lambda array: tf.TensorSpec(shape(array), array.dtype), batch)
    # TensorFlow never lets go of a generator function: it must not hold the sequence, and with it the host batch.
    method = weakref.WeakMethod(one_pass)
    dataset = tf.data.Dataset.from_generator(lambda: draws.watched(_called(method)), output_signature=spec)
    options = tf.data.Options()
    options.autotune.enabled = False  # nothing to tune, and its thread's end holds up every other epoch by 0.15 s
    return dataset.prefetch(HANDED_TO_TENSORFLOW_AHEAD).with_options(options)


def _called(method: weakref.WeakMethod[Callable[[], Iterator[Any]]]) -> Iterator[Any]:
    """What a method returns, if its object is still there."""
    function = method()
    if function is None:
        raise RuntimeError("the sequence that this dataset was made of is gone; keep a reference to it")
    return function()
