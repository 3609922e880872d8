"""Making a compiled Keras model train on many devices, without changing its class.

All is bound on the instances (`model.train_step`, `optimizer.apply`, ...), so that a saved model holds nothing of this
package, and each binding starts from the method of the class, so that preparing a model twice is preparing it once.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.errors import ConfigError
from dist_loader.devices import Devices
from dist_loader.sequence import ImageSequence
from dist_loader.training import steps

def prepare(model: Any, devices: Devices, sequence: ImageSequence) -> None:
    """Build a compiled model and its optimizer, and bind to them what the devices need.

    Args:
        model: a compiled Keras model.
        devices: how its steps run.
        sequence: shows a batch to a model that does not know its input's shape.

    Raises:
        ConfigError: the model is not compiled, or could not train exactly on these devices.
    """
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise ConfigError("the model is not compiled; call model.compile(...) inside strategy.scope() first")
    devices.check(model)
    with devices.scope():
        if not model.built:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(sequence[0])
            model(keras.tree.map_structure(lambda array: tf.zeros((1, *array.shape[1:]), array.dtype), x))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    _bind(model, devices)


def _bind(model: Any, devices: Devices) -> None:
    prepared_for = (devices, model.optimizer)
    if getattr(model.train_step, "prepared_for", None) == prepared_for:
        return  # Its compiled steps can be used again.
    share = steps.Share()
    cls = type(model)
    if cls.train_step is keras.Model.train_step:
        train_step = functools.partial(steps.train_step, model, devices, share)
    else:
        train_step = functools.partial(_own_train_step, model, devices, share)
    # Here and not on the model: Keras saves what it finds on a model.
    train_step.prepared_for = prepared_for  # type: ignore[attr-defined]
    model.train_step = train_step
    if cls.test_step is keras.Model.test_step:
        model.test_step = functools.partial(steps.test_step, model, devices)
    model.get_metrics_result = functools.partial(_metrics_over_world, model, devices)
    model.optimizer.apply = functools.partial(_reduce_and_apply, model.optimizer, devices, share)
    model.train_function = model.test_function = None


def _own_train_step(model: Any, devices: Devices, share: steps.Share, data: Any) -> Any:
    """A train step of the user's own class, with the gradients that it applies weighted by their real samples."""
    _, _, weights = keras.utils.unpack_x_y_sample_weight(data)
    share.value = steps.real_share(devices, weights)
    try:
        return type(model).train_step(model, data)
    finally:
        share.value = None


def _reduce_and_apply(
    optimizer: Any, devices: Devices, share: steps.Share, grads: Any, trainable_variables: Any = None
) -> None:
    """The optimizer's own `apply`, on gradients averaged over the world.

    Before everything that the optimizer does: gradients are then unscaled, clipped and checked for overflow alike on
    every rank. A reduction inside of the loss-scaling optimizer's condition would wait for ever for a rank that skips.
    """
    type(optimizer).apply(optimizer, devices.mean_gradients(list(grads), share.value), trainable_variables)


def _metrics_over_world(model: Any, devices: Devices) -> Any:
    """The model's metrics from the states of all ranks together, at the end of an epoch or an evaluation.

    A metric's state is declared to be summed over devices, so the sum of the ranks' states is the state of one process
    that saw all samples. The average of the ranks' results is not (AUC, unequal numbers of samples).
    Inside of a step the result is this rank's own.
    """
    own = functools.partial(type(model).get_metrics_result, model)
    if devices.world.size == 1 or not tf.executing_eagerly():
        return own()
    states = list({id(v): v for metric in model.metrics for v in metric.variables}.values())
    local = [np.asarray(state.numpy()) for state in states]
    assign(states, devices.sum_arrays(local))
    try:
        return own()
    finally:
        assign(states, local)


def assign(variables: list[Any], values: list[Any]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
