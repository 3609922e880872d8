"""Batch normalisation whose statistics are those of the device batches of all ranks together."""

from __future__ import annotations

import functools
from typing import Any

import keras
import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.training.trace import Trace


def synchronised_layers(model: Any) -> list[Any]:
    """The layers of a model that were made with `synchronized=True`."""
    kind = keras.layers.BatchNormalization
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind) and layer.synchronized]


def bind_moments(model: Any, devices: Devices, trace: Trace) -> None:
    """Let these layers take mean and variance over all ranks, replicas and real rows.

    Keras's own synchronise the replicas of one process, and count the fill.
    """
    for layer in synchronised_layers(model):
        layer._moments = functools.partial(_moments, layer, devices, trace)


def _moments(layer: Any, devices: Devices, trace: Trace, inputs: Any, mask: Any) -> tuple[Any, Any]:
    """Mean and variance over all axes but the layer's, float32 of shape (channels,).

    Of the inputs less the moving mean, which all ranks have alike, for the difference of two large squares would lose
    digits (Chan, Golub, LeVeque 1983, "Algorithms for Computing the Sample Variance").
    """
    axes, channels = layer._reduction_axes, inputs.shape[layer.axis]
    broadcast = [1] * len(inputs.shape)
    broadcast[layer.axis] = channels
    shift = tf.stop_gradient(tf.reshape(tf.cast(layer.moving_mean, inputs.dtype), broadcast))
    counted = _counted(layer, inputs, mask, trace.real)
    shifted = inputs - shift
    entries = tf.cast(tf.size(inputs) / (channels * tf.size(counted)), inputs.dtype)  # that one entry of it stands for
    count = tf.fill([channels], tf.reduce_sum(counted) * entries)
    local = tf.stack([tf.reduce_sum(shifted * counted, axes), tf.reduce_sum(shifted**2 * counted, axes), count])
    (sums,) = devices.sum_in_step([local])
    mean = tf.math.divide_no_nan(sums[0], sums[2])
    variance = tf.maximum(tf.math.divide_no_nan(sums[1], sums[2]) - mean**2, 0.0)
    return mean + tf.reshape(shift, [channels]), variance


def _counted(layer: Any, inputs: Any, mask: Any, real: Any | None) -> Any:
    """1 for what counts and 0 for what does not, in a shape that broadcasts to the inputs'."""
    ones = [1] * (len(inputs.shape) - 1)
    counted = tf.ones([1, *ones], inputs.dtype)
    if real is not None:
        if inputs.shape[0] is not None and real.shape[0] is not None and inputs.shape[0] != real.shape[0]:
            raise ConfigError(
                f"layer {layer.name!r} synchronises statistics over {inputs.shape[0]} rows of a batch of "
                f'{real.shape[0]}, so that fill cannot be told from samples; use remainder="drop" or "wrap"'
            )
        counted *= tf.reshape(tf.cast(real, inputs.dtype), [-1, *ones])
    if mask is not None:
        counted *= tf.cast(mask, inputs.dtype)[..., None]
    return counted
