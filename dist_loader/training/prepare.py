"""Making a compiled Keras model train on many devices, without changing its class.

All is bound on the instances (`model.train_step`, `optimizer.apply`, ...), so that a saved model holds nothing of this
package, and each binding starts from the method of the class, so that preparing a model twice is preparing it once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.sequence import ImageSequence
from dist_loader.training import steps
from dist_loader.training.callbacks import StopFlag
from dist_loader.training.exact_loss import bind_losses
from dist_loader.training.trace import Trace


@dataclass(frozen=True)
class Prepared:
    """What a model was prepared for.

    Attributes:
        devices: what it trains on.
        optimizer: whose gradients are averaged.
        slices: parts that a device's batch is computed in.
        stop: the ranks' agreement to stop.
    """

    devices: Devices
    optimizer: Any
    slices: int
    stop: StopFlag = field(default_factory=StopFlag, compare=False)


def prepared(model: Any) -> Prepared | None:
    """What a model was prepared for; None if it was not, or was compiled anew since."""
    found: Prepared | None = getattr(model.train_step, "prepared", None)
    return found if found is not None and found.optimizer is model.optimizer else None


def prepare(model: Any, devices: Devices, sequence: ImageSequence) -> Prepared:
    """Build a compiled model and its optimizer, and bind to them what the devices need.

    A model that is prepared already keeps its compiled steps.

    Args:
        model: a compiled Keras model.
        devices: how its steps run.
        sequence: shows a batch to a model that does not know its input's shape.

    Raises:
        ConfigError: the model is not compiled, or could not train exactly on these devices.
    """
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise ConfigError("the model is not compiled; call model.compile(...) inside strategy.scope() first")
    devices.adapt(model)
    with devices.scope():
        if not model.built:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(sequence[0])
            model(keras.tree.map_structure(lambda array: tf.zeros((1, *array.shape[1:]), array.dtype), x))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    now = Prepared(devices, model.optimizer, sequence.plan.accumulate)
    before = prepared(model)
    if before == now:
        return before
    _bind(model, now)
    return now


def _bind(model: Any, now: Prepared) -> None:
    devices, trace = now.devices, Trace()
    step = steps.Step(model, devices, trace, now.slices)
    cls = type(model)
    if cls.train_step is keras.Model.train_step:
        train_step = functools.partial(steps.Step.train, step)
    else:
        train_step = functools.partial(_own_train_step, model, devices, trace)
    # On the function and not on the model: Keras saves what it finds on a model.
    train_step.prepared = now  # type: ignore[attr-defined]
    model.train_step = train_step
    if cls.test_step is keras.Model.test_step:
        model.test_step = functools.partial(steps.Step.test, step)
    model.get_metrics_result = functools.partial(_metrics_over_world, model, devices)
    model.optimizer.apply = functools.partial(_reduce_and_apply, now, trace)
    bind_losses(model, devices, trace)
    model.train_function = model.test_function = None


def _own_train_step(model: Any, devices: Devices, trace: Trace, data: Any) -> Any:
    """A train step of the user's own class, with the gradients that it applies weighted by their real samples."""
    _, _, weights = keras.utils.unpack_x_y_sample_weight(data)
    with steps.told(trace, share=steps.real_share(devices, weights)):
        return type(model).train_step(model, data)


def _reduce_and_apply(now: Prepared, trace: Trace, grads: Any, trainable_variables: Any = None) -> None:
    """The optimizer's own `apply`, on gradients averaged over the world.

    Before everything that the optimizer does: gradients are then unscaled, clipped and checked for overflow alike on
    every rank. A reduction inside of the loss-scaling optimizer's condition would wait for ever for a rank that skips.
    """
    if now.devices.world.size > 1:
        now.stop.exchange(lambda wish: now.devices.sum_in_step([wish])[0])
    type(now.optimizer).apply(now.optimizer, now.devices.mean_gradients(list(grads), trace.share), trainable_variables)


def _metrics_over_world(model: Any, devices: Devices) -> Any:
    """The model's metrics from the states of all ranks together, at the end of an epoch or an evaluation.

    A metric's state is declared to be summed over devices, so the sum of the ranks' states is the state of one process
    that saw all samples. The average of the ranks' results is not (AUC, unequal numbers of samples).
    Inside of a step the result is this rank's own.
    """
    own = functools.partial(type(model).get_metrics_result, model)
    if devices.world.size == 1:
        return own()
    states = _states_to_sum(model)
    if not tf.executing_eagerly():
        return own()
    local = [np.asarray(state.numpy()) for state in states]
    assign(states, devices.sum_arrays(local))
    try:
        return own()
    finally:
        assign(states, local)


def _states_to_sum(model: Any) -> list[Any]:
    """The variables that a model's metrics keep.

    Raises:
        ConfigError: one of them says that it is not to be summed over devices.
    """
    states = {}
    for metric in model.metrics:
        for variable in metric.variables:
            if variable.aggregation != "sum":
                raise ConfigError(
                    f"metric {metric.name!r} keeps {variable.name!r}, whose values of several ranks cannot be summed "
                    f"(its aggregation is {variable.aggregation!r}); leave it out, or compute it in one process"
                )
            states[id(variable)] = variable
    return list(states.values())


def assign(variables: list[Any], values: list[Any]) -> None:
    """Give Keras variables new values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
