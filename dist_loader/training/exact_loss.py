"""Losses whose mean is not simply over rows: with masks, summed, or divided by the sum of weights.

The mean over the ranks of such a mean is not the mean over all samples, since each rank divides by a number of its own
(valid tokens, weights). Here the loss is divided by what all ranks count together, which costs one small message
between the forward and the backward pass. Plain losses do without: for them the gradients are weighted (see `steps`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend
from keras.src.losses import loss as keras_loss

from dist_loader.training.rows import real_rows
from dist_loader.training.trace import Trace

_MEANS_OVER_ROWS = ("sum_over_batch_size", "mean")


def needs_global_count(model: Any, y_pred: Any) -> bool:
    """Whether a loss of a compiled model divides by something else than the number of rows."""
    if model._compile_loss is None:
        return False
    losses = [loss for loss in keras.tree.flatten(model._compile_loss._user_loss) if loss is not None]
    plain = all(getattr(loss, "reduction", "sum_over_batch_size") in _MEANS_OVER_ROWS for loss in losses)
    masked = any(backend.get_keras_mask(output) is not None for output in keras.tree.flatten(y_pred))
    return masked or not plain


def bind_losses(model: Any, trace: Trace) -> None:
    """Let a compiled model's losses, and the trackers of its several outputs, heed what the step says in `trace`.

    Keras makes them at the first step, unless it has before.
    """
    compiled = model._compile_loss
    if compiled is None:
        return
    if compiled.built:
        _bind_parts(compiled, trace)
    else:
        compiled.build = functools.partial(_build, compiled, trace)


def _build(compiled: Any, trace: Trace, y_true: Any, y_pred: Any) -> None:
    type(compiled).build(compiled, y_true, y_pred)
    _bind_parts(compiled, trace)


def _bind_parts(compiled: Any, trace: Trace) -> None:
    compiled._flat_losses = [
        part._replace(loss=_CountedLoss(getattr(part.loss, "keras_loss", part.loss), trace))
        for part in compiled._flat_losses
    ]
    for tracker in compiled.metrics:
        if tracker is not None:
            tracker.update_state = functools.partial(_track, tracker, trace)


def _track(tracker: Any, trace: Trace, value: Any, sample_weight: Any = None) -> Any:
    """A tracker's own `update_state`, which counts the rows that the step counts. Keras counts all."""
    return type(tracker).update_state(tracker, value, sample_weight if trace.rows is None else trace.rows)


class _CountedLoss:
    """A Keras loss, divided by the count of all slices, replicas and ranks where the step asks for it.

    Its mean over slices and ranks (and Keras's sum over the replicas) is then one process's over all real samples.
    It does what `keras.losses.Loss.__call__` and `reduce_weighted_values` do, but for the count. Fill is told by the
    sign of its weight.
    """

    def __init__(self, loss: Any, trace: Trace) -> None:
        self.keras_loss = loss
        self._trace = trace

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        loss = self.keras_loss
        sample_weight = _by_row(sample_weight, y_pred)
        if self._trace.total is None:
            return loss(y_true, y_pred, sample_weight)
        masks = [backend.get_keras_mask(y_pred)]
        y_true, y_pred = (
            keras.tree.map_structure(lambda part: keras.ops.convert_to_tensor(part, dtype=loss.dtype), side)
            for side in (y_true, y_pred)
        )
        values = loss.call(y_true, y_pred)
        masks.append(backend.get_keras_mask(values))
        masks = [tf.cast(mask, tf.bool) for mask in masks if mask is not None]
        return self._mean(values, masks, sample_weight, self._trace.total)

    def _mean(self, values: Any, masks: list[Any], weights: Any | None, total_of: Callable[[Any], Any]) -> Any:
        reduction = self.keras_loss.reduction
        if reduction in (None, "none") or len(values.shape) == 0:
            return values
        real = real_rows(weights)
        mask = tf.cast(functools.reduce(tf.logical_and, masks), values.dtype) if masks else None
        weights = keras_loss.apply_mask(weights, mask, dtype=values.dtype, reduction="sum")
        if weights is not None:
            values, weights = keras_loss.squeeze_or_expand_to_same_rank(values, tf.cast(weights, values.dtype))
            values = values * weights
        total = tf.reduce_sum(values)
        parts = tf.cast(self._trace.parts, values.dtype)
        if reduction == "sum":
            return total * parts
        if reduction == "mean_with_sample_weight" and weights is not None:
            count = tf.reduce_sum(weights)
        else:
            count = _valid_entries(values, mask, real)
        count = total_of(tf.stop_gradient(count))
        # Keras sums over the replicas; the step averages over slices and ranks.
        return tf.math.divide_no_nan(total, tf.cast(count, total.dtype)) * parts


def _by_row(weights: Any | None, y_pred: Any) -> Any | None:
    """Weights of rows, in a shape that Keras also takes where a row has many losses, such as one for each token."""
    if weights is None or not hasattr(y_pred, "shape") or len(weights.shape) != 1 or len(y_pred.shape) < 3:
        return weights
    return tf.reshape(weights, [-1] + [1] * (len(y_pred.shape) - 2))


def _valid_entries(values: Any, mask: Any | None, real: Any | None) -> Any:
    """How many entries of `values` are neither masked nor fill."""
    counted = tf.ones_like(values) if mask is None else mask
    if real is not None:
        counted *= tf.reshape(tf.cast(real, counted.dtype), [-1] + [1] * (len(counted.shape) - 1))
    entries = tf.cast(tf.size(values), counted.dtype) / tf.cast(tf.size(counted), counted.dtype)
    return tf.reduce_sum(counted) * entries
