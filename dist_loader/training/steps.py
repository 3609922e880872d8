"""A train step and a test step that give the numbers of one process, whatever computes them.

They are Keras's own steps (keras 3.15, `backend/tensorflow/trainer.py`), written again for batches of which some rows
are fill, and which may be computed in slices. Where they differ from Keras, they say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.training.exact_loss import needs_global_count
from dist_loader.training.rows import only, real_rows
from dist_loader.training.trace import Trace


@dataclass(frozen=True)
class Step:
    """What the steps of a model need to know.

    Attributes:
        model: a compiled Keras model.
        devices: what computes.
        trace: where the optimizer and the losses look for what the step tells them.
        slices: parts that a device's batch is computed in, one after the other, for one update.
    """

    model: Any
    devices: Devices
    trace: Trace
    slices: int

    def train(self, data: Any) -> dict[str, Any]:
        """One optimizer update from one batch of this process."""
        model = self.model
        data = keras.utils.unpack_x_y_sample_weight(data)
        share = real_share(self.devices, data[2])
        trainable = model.trainable_weights
        if self.slices == 1:
            gradients, share_of_gradients = self._gradients(data, share)
        else:
            gradients, share_of_gradients = self._gradients_of_slices(data, share), share
        with told(self.trace, share=share_of_gradients):
            model.optimizer.apply_gradients(zip(gradients, trainable, strict=True))
        return dict(model.get_metrics_result())

    def test(self, data: Any) -> dict[str, Any]:
        """Loss and metrics of one batch of this process."""
        data = keras.utils.unpack_x_y_sample_weight(data)
        share = real_share(self.devices, data[2])
        y_pred = self._call(data[0], training=False)
        self._loss(data, y_pred, share, training=False)
        self._update_metrics(data, y_pred, share)
        return dict(self.model.get_metrics_result())

    def _gradients(self, data: tuple[Any, Any, Any], share: Any | None) -> tuple[list[Any], Any | None]:
        """Gradients of the loss, and their weight in the average over the ranks (None: equal weights)."""
        model = self.model
        with tf.GradientTape() as tape:
            y_pred = self._call(data[0], training=True)
            loss, counted_globally = self._loss(data, y_pred, share, training=True)
            loss = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, model.trainable_weights)
        self._update_metrics(data, y_pred, share)
        return gradients, None if counted_globally else share

    def _gradients_of_slices(self, data: tuple[Any, Any, Any], share: Any | None) -> list[Any]:
        """The mean of the slices' gradients; only one slice is in the device's memory at a time.

        A loop of the graph and not of Python, whose iterations TensorFlow might compute side by side.
        """
        trainable = self.model.trainable_weights
        length = _length(data[0]) // self.slices

        def add_slice(at: Any, sums: list[Any]) -> tuple[Any, list[Any]]:
            part = keras.tree.map_structure(
                lambda tensor: None if tensor is None else tensor[at * length : (at + 1) * length], data
            )
            gradients, weight = self._gradients(part, share)
            if weight is not share:
                raise ConfigError(
                    "losses with masks or of another reduction than the mean cannot be computed in slices"
                )
            return at + 1, [
                total if gradient is None else total + tf.convert_to_tensor(gradient)
                for total, gradient in zip(sums, gradients, strict=True)
            ]

        zeros = [tf.zeros(weight.shape, weight.dtype) for weight in trainable]
        _, sums = tf.while_loop(
            lambda at, _: at < self.slices, add_slice, (tf.constant(0), zeros), parallel_iterations=1
        )
        return [total / self.slices for total in sums]

    def _call(self, x: Any, training: bool) -> Any:
        return self.model(x, training=training) if self.model._call_has_training_arg else self.model(x)

    def _loss(self, data: tuple[Any, Any, Any], y_pred: Any, share: Any | None, training: bool) -> tuple[Any, bool]:
        """The loss to differentiate, tracked; and whether it was divided by the counts of all ranks.

        A loss is tracked as often as there are real samples behind it. Keras counts all rows.
        """
        model, (x, y, weights) = self.model, data
        counted_globally = needs_global_count(model, y_pred)
        rows: Any = tf.cast(_length(x), tf.float32)
        if counted_globally:
            weights = _unscaled(weights, share)
            if share is not None:
                (sum_of_shares,) = self.devices.sum_in_step([share / self.devices.replicas])
                rows = rows * sum_of_shares / self.devices.world.size
        elif share is not None:
            rows = rows * share
        with told(self.trace, rows=rows, count_globally=counted_globally):
            loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training)
        model._loss_tracker.update_state(keras_loss.unscale_loss_for_distribution(loss), sample_weight=rows)
        return loss, counted_globally

    def _update_metrics(self, data: tuple[Any, Any, Any], y_pred: Any, share: Any | None) -> None:
        """Keras's metrics of the real rows alone, with their weights as the user gave them."""
        x, y, weights = data
        if share is not None:
            real = real_rows(weights)
            weights = only(real, _unscaled(weights, share))
            x, y, y_pred = (only(real, part) for part in (x, y, y_pred))
        self.model.compute_metrics(x, y, y_pred, sample_weight=weights)


def real_share(devices: Devices, weights: Any | None) -> Any | None:
    """Real samples / all samples of this process's batch, a float32 scalar; None when the batches have no weights."""
    real = real_rows(weights)
    if real is None:
        return None
    return devices.sum_over_replicas(tf.reduce_mean(tf.cast(real, tf.float32))) / devices.replicas


@contextmanager
def told(trace: Trace, **facts: Any) -> Iterator[None]:
    """Tell the model's parts what the step knows, for what is called inside."""
    before = {name: getattr(trace, name) for name in facts}
    for name, value in facts.items():
        setattr(trace, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(trace, name, value)


def _length(x: Any) -> Any:
    """Rows of a batch."""
    first = next(part for part in keras.tree.flatten(x) if part is not None)
    return first.shape[0] or tf.shape(first)[0]


def _unscaled(weights: Any | None, share: Any | None) -> Any | None:
    """Weights as the user gave them. The sequence scales them so that a filled batch has the right mean."""
    if weights is None or share is None:
        return weights
    return keras.tree.map_structure(lambda weight: weight * tf.cast(share, weight.dtype), weights)
