"""Which rows of a batch are real, and which are fill.

Fill has the weight minus zero (see `BatchSequence`): it is zero to all arithmetic, and its sign tells it apart.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src import backend


def real_rows(weights: Any | None) -> Any | None:
    """Which rows are not fill, bool of shape (batch,); None where batches have no weights, for then all are real."""
    if weights is None:
        return None
    first = tf.cast(keras.tree.flatten(weights)[0], tf.float32)
    fill = tf.bitcast(first, tf.int32) < 0  # the sign is the highest bit
    return ~tf.reduce_all(fill, axis=list(range(1, len(first.shape))))


def only(real: Any, values: Any) -> Any:
    """The real rows of every tensor in a structure, and of its Keras mask."""

    def part(tensor: Any) -> Any:
        if tensor is None:
            return None
        kept = tf.boolean_mask(tensor, real)
        mask = backend.get_keras_mask(tensor)
        if mask is not None:
            backend.set_keras_mask(kept, tf.boolean_mask(mask, real))
        return kept

    return keras.tree.map_structure(part, values)


def length(x: Any) -> Any:
    """Rows of a batch: a number, or a scalar tensor where it is not known before."""
    first = next(part for part in keras.tree.flatten(x) if part is not None)
    return first.shape[0] or tf.shape(first)[0]
