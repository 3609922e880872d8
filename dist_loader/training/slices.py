"""A batch in equal slices, of which only one is in the device's memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


class Slices:
    """The slices of a batch.

    Args:
        data: a structure of tensors with the same number of rows, and of None.
        number: how many slices; divides the rows.
    """

    def __init__(self, data: Any, number: int) -> None:
        self._number = number
        self._data = data if number == 1 else keras.tree.map_structure(self._cut, data)

    def _cut(self, tensor: Any) -> Any:
        if tensor is None:
            return None
        rows = tensor.shape[0]
        known, found = tensor.shape[1:], tf.shape(tensor)[1:]
        lengths = [found[axis] if length is None else length for axis, length in enumerate(known)]
        return tf.reshape(tensor, [self._number, -1 if rows is None else rows // self._number, *lengths])

    def part(self, at: Any) -> Any:
        """One slice."""
        if self._number == 1:
            return self._data
        return keras.tree.map_structure(lambda tensor: None if tensor is None else tensor[at], self._data)

    def mapped(self, function: Callable[[Any], Any]) -> Any:
        """A function's outputs for all slices, end to end as if for the whole batch."""
        first = function(self.part(0))
        if self._number == 1:
            return first
        outputs = keras.tree.flatten(first)
        kept = [tf.TensorArray(output.dtype, self._number).write(0, output) for output in outputs]

        def one_more(at: Any, kept: list[Any]) -> tuple[Any, list[Any]]:
            more = keras.tree.flatten(function(self.part(at)))
            return at + 1, [array.write(at, output) for array, output in zip(kept, more, strict=True)]

        _, kept = tf.while_loop(
            lambda at, _: at < self._number, one_more, (tf.constant(1), kept), parallel_iterations=1
        )
        return keras.tree.pack_sequence_as(first, [array.concat() for array in kept])
