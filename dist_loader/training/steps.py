"""A train step and a test step in which the fill of a last batch counts nowhere.

They are Keras's own steps (keras 3.15, `backend/tensorflow/trainer.py`), written again for batches of which some rows
are fill: rows of weight -0.0 (see `ImageSequence`). What differs from Keras is said where it differs.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss

from dist_loader.devices import Devices


class Share:
    """The weight of this process's gradients in the average over the world, for the step that is being traced.

    The step knows it and the optimizer needs it, and a user's own train step in between passes on neither.
    """

    def __init__(self) -> None:
        self.value: Any | None = None


def train_step(model: Any, devices: Devices, share: Share, data: Any) -> dict[str, Any]:
    """One optimizer update from one batch of this process."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    real = _real_rows(weights)
    with tf.GradientTape() as tape:
        y_pred = _call(model, x, training=True)
        loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=True)
        _track_loss(model, devices, loss, x, real)
        loss = model.optimizer.scale_loss(loss)
    trainable = model.trainable_weights
    gradients = tape.gradient(loss, trainable)
    share.value = real_share(devices, weights)
    model.optimizer.apply_gradients(zip(gradients, trainable, strict=True))
    share.value = None
    return _compute_metrics(model, devices, x, y, y_pred, weights, real)


def test_step(model: Any, devices: Devices, data: Any) -> dict[str, Any]:
    """Loss and metrics of one batch of this process."""
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
    real = _real_rows(weights)
    y_pred = _call(model, x, training=False)
    loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=False)
    _track_loss(model, devices, loss, x, real)
    return _compute_metrics(model, devices, x, y, y_pred, weights, real)


def real_share(devices: Devices, weights: Any | None) -> Any | None:
    """Real samples / all samples of this process's batch, a float32 scalar; None when the batches have no weights."""
    real = _real_rows(weights)
    if real is None:
        return None
    return devices.sum_over_replicas(tf.reduce_mean(tf.cast(real, tf.float32))) / devices.replicas


def _real_rows(weights: Any | None) -> Any | None:
    """Which rows are not fill, bool of shape (batch,). The sign of a negative zero is its highest bit."""
    if weights is None:
        return None
    return tf.bitcast(tf.cast(weights, tf.float32), tf.int32) >= 0


def _call(model: Any, x: Any, training: bool) -> Any:
    return model(x, training=training) if model._call_has_training_arg else model(x)


def _track_loss(model: Any, devices: Devices, loss: Any, x: Any, real: Any | None) -> None:
    """Count the batch's loss as often as it has real samples. Keras counts all of them."""
    rows = tf.shape(next(part for part in keras.tree.flatten(x) if part is not None))[0]
    if real is not None:
        # The loss is the mean over the real samples of all replicas together, so each replica counts it for its part.
        rows = devices.sum_over_replicas(tf.reduce_sum(tf.cast(real, tf.float32))) / devices.replicas
    model._loss_tracker.update_state(keras_loss.unscale_loss_for_distribution(loss), sample_weight=rows)


def _compute_metrics(
    model: Any, devices: Devices, x: Any, y: Any, y_pred: Any, weights: Any | None, real: Any | None
) -> dict[str, Any]:
    """Keras's metrics of the real rows alone, with their weights brought back to 1."""
    if real is None or weights is None:
        return dict(model.compute_metrics(x, y, y_pred, sample_weight=weights))

    def real_part(tensor: Any) -> Any:
        return None if tensor is None else tf.boolean_mask(tensor, real)

    x, y, y_pred = (keras.tree.map_structure(real_part, part) for part in (x, y, y_pred))
    share = real_share(devices, weights)
    return dict(model.compute_metrics(x, y, y_pred, sample_weight=real_part(weights) * share))
