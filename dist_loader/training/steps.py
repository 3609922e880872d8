"""A train step and a test step that give the numbers of one process, whatever computes them.

They are Keras's own steps (keras 3.15, `backend/tensorflow/trainer.py`), written again for batches of which some rows
are fill, and which may be computed in slices. Where they differ from Keras, they say so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.losses import loss as keras_loss
from tensorflow.python.eager import context

from dist_loader.devices import Devices
from dist_loader.training import counts
from dist_loader.training.alarm import Alarm
from dist_loader.training.exact_loss import needs_global_count
from dist_loader.training.rows import length, only, real_rows
from dist_loader.training.slices import Slices
from dist_loader.training.trace import Trace, told
from dist_loader.training.watched import compiling

Data = tuple[Any, Any, Any]


@dataclass(frozen=True)
class Step:
    """What the steps of a model need to know.

    Attributes:
        model: a compiled Keras model.
        devices: what computes.
        trace: where the optimizer and the losses look for what the step tells them.
        slices: parts that a device's batch is computed in, one after the other.
        even: whether the loss is weighted by the rank's real samples before its gradient is taken, and not after, as
            it must be where ranks share statistics of a layer: then each rank's gradient is of all ranks' losses.
        alarm: where a step notes how far it has come, if it can be done again.
    """

    model: Any
    devices: Devices
    trace: Trace
    slices: int
    even: bool
    alarm: Alarm | None = None

    def train(self, data: Any) -> dict[str, Any]:
        """One optimizer update from one batch of this process."""
        compiling()
        gradients, share = self.gradients(keras.utils.unpack_x_y_sample_weight(data))
        with told(self.trace, share=share):
            self.model.optimizer.apply_gradients(zip(gradients, self.model.trainable_weights, strict=True))
        return dict(self.model.get_metrics_result())

    def test(self, data: Any) -> dict[str, Any]:
        """Loss and metrics of one batch of this process."""
        compiling()
        data = keras.utils.unpack_x_y_sample_weight(data)
        share = real_share(self.devices, data[2])
        known = self._counts(data, share, training=False)
        slices = Slices(data, self.slices)

        def test_slice(at: Any) -> Any:
            part = slices.part(at)
            y_pred = self._call(part, training=False)
            self._loss(part, y_pred, share, known, training=False)
            self._update_metrics(part, y_pred, share)
            return at + 1

        if self.slices == 1:
            test_slice(0)
        else:
            tf.while_loop(lambda at: at < self.slices, test_slice, [tf.constant(0)], parallel_iterations=1)
        return dict(self.model.get_metrics_result())

    def gradients(self, data: Data) -> tuple[list[Any], Any | None]:
        """Gradients of the loss, and their weight in the average over the ranks (None: equal weights).

        The mean of the slices' gradients; only one slice is in the device's memory at a time.
        """
        share = real_share(self.devices, data[2])
        known = self._counts(data, share, training=True)
        if self.slices == 1:
            return self._gradients(data, share, known)
        slices = Slices(data, self.slices)
        weights: list[Any] = []

        def add_slice(at: Any, sums: list[Any]) -> tuple[Any, list[Any]]:
            gradients, weight = self._gradients(slices.part(at), share, known)
            weights.append(weight)
            return at + 1, [
                total if gradient is None else total + tf.convert_to_tensor(gradient)
                for total, gradient in zip(sums, gradients, strict=True)
            ]

        # A loop of the graph and not of Python, whose iterations TensorFlow might compute side by side.
        zeros = [tf.zeros(weight.shape, weight.dtype) for weight in self.model.trainable_weights]
        _, sums = tf.while_loop(
            lambda at, _: at < self.slices, add_slice, (tf.constant(0), zeros), parallel_iterations=1
        )
        return [total / self.slices for total in sums], None if weights[0] is None else share

    def _counts(self, data: Data, share: Any | None, training: bool) -> counts.Counts | None:
        """What the losses count over all slices and ranks, found before the slices are computed.

        It costs a forward pass at most. Where the count does not depend on it, as with masks of an embedding,
        TensorFlow leaves it out.
        """
        if self.slices == 1 and self.alarm is None:
            return None
        slices = Slices(data, self.slices)

        def counted(at: Any) -> list[Any] | None:
            found: list[Any] = []
            x, y, weights = part = slices.part(at)
            with keras.StatelessScope():
                y_pred = self._call(part, training)
            if not needs_global_count(self.model, y_pred):
                return None
            self._build(self.model._compile_loss, y, y_pred)
            weights = unscaled(weights, share)

            def note(count: Any) -> Any:
                found.append(count)
                return count

            weights_of_model = [(weight, weight.value) for weight in self.model.trainable_weights]  # for regularisers
            with keras.StatelessScope(weights_of_model), told(self.trace, total=note):
                self.model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training)
            return found

        first = counted(0)
        if first is None:
            return None
        _, sums = tf.while_loop(
            lambda at, _: at < self.slices,
            lambda at, sums: (at + 1, [total + more for total, more in zip(sums, counted(at) or [], strict=True)]),
            (tf.constant(1), first),
            parallel_iterations=1,
        )
        return counts.over_world(self.devices, sums, share, self.alarm)

    def _gradients(self, data: Data, share: Any | None, known: counts.Counts | None) -> tuple[list[Any], Any | None]:
        model = self.model
        with tf.GradientTape() as tape:
            y_pred = self._call(data, training=True)
            loss, even = self._loss(data, y_pred, share, known, training=True)
            if self.even and share is not None and not even:
                (sum_of_shares,) = self.devices.sum_in_step([share / self.devices.replicas])
                loss = tf.math.divide_no_nan(loss * share * self.devices.world.size, sum_of_shares)
                even = True
            loss = model.optimizer.scale_loss(loss)
        gradients = tape.gradient(loss, model.trainable_weights)
        self._update_metrics(data, y_pred, share)
        return gradients, None if even else share

    def _call(self, data: Data, training: bool) -> Any:
        x, _, weights = data
        with told(self.trace, real=real_rows(weights)):
            return self.model(x, training=training) if self.model._call_has_training_arg else self.model(x)

    def _loss(
        self, data: Data, y_pred: Any, share: Any | None, known: counts.Counts | None, training: bool
    ) -> tuple[Any, bool]:
        """The loss to differentiate, tracked; and whether it was divided by the counts of all ranks.

        A loss is tracked as often as there are real samples behind it. Keras counts all rows.
        """
        model, (x, y, weights) = self.model, data
        rows: Any = tf.cast(length(x), tf.float32)
        if not needs_global_count(model, y_pred):
            with told(self.trace, rows=rows if share is None else rows * share):
                return self._tracked_loss(data, y_pred, training), False
        world = self.devices.world.size
        if known is None:
            known = counts.as_they_come(self.devices, share)
        if share is not None:
            weights = unscaled(weights, share)
            rows = rows * known.sum_of_shares / world
        with told(self.trace, rows=rows, total=known.total(), parts=self.slices * world):
            return self._tracked_loss((x, y, weights), y_pred, training), True

    def _tracked_loss(self, data: Data, y_pred: Any, training: bool) -> Any:
        model, (x, y, weights) = self.model, data
        self._build(model._compile_loss, y, y_pred)
        loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training)
        tracked = keras_loss.unscale_loss_for_distribution(loss)
        model._loss_tracker.update_state(tracked, sample_weight=self.trace.rows)
        return loss

    def _update_metrics(self, data: Data, y_pred: Any, share: Any | None) -> None:
        """Keras's metrics of the real rows alone, with their weights as the user gave them."""
        x, y, weights = data
        if share is not None:
            real = real_rows(weights)
            weights = only(real, unscaled(weights, share))
            x, y, y_pred = (only(real, part) for part in (x, y, y_pred))
        self._build(self.model._compile_metrics, y, y_pred)
        with told(self.trace, over_world=False):
            self.model.compute_metrics(x, y, y_pred, sample_weight=weights)

    def _build(self, compiled: Any | None, y: Any, y_pred: Any) -> None:
        """Make the variables of the compiled losses or metrics, which Keras makes while it traces their first use.

        They are made outside of the step: one that makes variables is traced a second time by TensorFlow, which takes
        as long as the first. (Over replicas Keras has made them before.)
        """
        if compiled is not None and not compiled.built:
            with tf.Graph().as_default(), context.eager_mode():  # `tf.init_scope` would still count them as the step's
                compiled.build(y, y_pred)


def real_share(devices: Devices, weights: Any | None) -> Any | None:
    """Real samples / all samples of this process's batch, a float32 scalar; None when the batches have no weights."""
    real = real_rows(weights)
    if real is None:
        return None
    return devices.sum_over_replicas(tf.reduce_mean(tf.cast(real, tf.float32))) / devices.replicas


def unscaled(weights: Any | None, share: Any | None) -> Any | None:
    """Weights as the user gave them. The sequence scales them so that a filled batch has the right mean."""
    if weights is None or share is None:
        return weights
    return keras.tree.map_structure(lambda weight: weight * tf.cast(share, weight.dtype), weights)
