"""Making a compiled Keras model train on many devices, without changing its class.

All is bound on the instances (`model.train_step`, `optimizer.apply`, ...), so that a saved model holds nothing of this
package, and each binding starts from the method of the class, so that preparing a model twice is preparing it once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.training import steps
from dist_loader.training.alarm import Alarm
from dist_loader.training.batch_norm import bind_moments, synchronised_layers
from dist_loader.training.exact_loss import bind_losses
from dist_loader.training.feed import Feed
from dist_loader.training.trace import Trace, told
from dist_loader.training.watched import compiling
from dist_loader.training.wishes import Wishes


@dataclass(frozen=True)
class Prepared:
    """What a model was prepared for.

    Attributes:
        devices: what it trains on.
        optimizer: whose gradients are averaged.
        slices: parts that a device's batch is trained in.
        test_slices: parts that a device's batch is evaluated in.
        retries: whether a step that a device has no memory for is done again in smaller slices.
        wishes: what single ranks ask of all.
        alarm: the ranks' news of running out of memory.
        trace: what a step tells the model's parts while it is traced.
    """

    devices: Devices
    optimizer: Any
    slices: int
    test_slices: int
    retries: bool
    wishes: Wishes = field(default_factory=Wishes, compare=False)
    alarm: Alarm = field(default_factory=Alarm, compare=False)
    trace: Trace = field(default_factory=Trace, compare=False)


def prepared(model: Any) -> Prepared | None:
    """What a model was prepared for; None if it was not, or was compiled anew since."""
    found: Prepared | None = getattr(model.train_step, "prepared", None)
    return found if found is not None and found.optimizer is model.optimizer else None


def prepare(
    model: Any,
    devices: Devices,
    sequence: Feed,
    slices: int = 1,
    test_slices: int = 1,
    retries: bool = False,
) -> Prepared:
    """Build a compiled model and its optimizer, and bind to them what the devices need.

    A model that is prepared already keeps its compiled steps.

    Args:
        model: a compiled Keras model.
        devices: how its steps run.
        sequence: shows a batch to a model that does not know its input's shape.
        slices: parts that a device's batch is trained in.
        test_slices: parts that a device's batch is evaluated in.
        retries: whether a step that a device has no memory for is done again in smaller slices.

    Raises:
        ConfigError: the model is not compiled, or could not train exactly on these devices.
    """
    if not getattr(model, "compiled", False) or model.optimizer is None:
        raise ConfigError("the model is not compiled; call model.compile(...) inside strategy.scope() first")
    for method, cut in (("train_step", slices > 1 or retries), ("test_step", test_slices > 1)):
        if cut and getattr(type(model), method) is not getattr(keras.Model, method):
            raise ConfigError(
                f"{type(model).__name__} has a {method} of its own, which cannot be computed in slices; leave out "
                'global_batch and device_batch="auto", or the method'
            )
    devices.adapt(model)
    with devices.scope():
        if not model.built:
            x, _, _ = keras.utils.unpack_x_y_sample_weight(sequence.example())
            model(keras.tree.map_structure(lambda array: tf.zeros((1, *array.shape[1:]), array.dtype), x))
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
    before = prepared(model)
    if before is None or before.devices != devices:
        now = Prepared(devices, model.optimizer, slices, test_slices, retries)
    else:  # the callbacks of a training that goes on hold on to its flags
        now = replace(before, slices=slices, test_slices=test_slices, retries=retries)
    if before != now:
        _bind(model, now)
    return now


def refuse_more_optimizers(model: Any) -> None:
    """Raise a ConfigError if a model's class, such as a GAN's, trains with optimizers beside `model.optimizer`."""
    more = [
        name
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer) and value is not model.optimizer
    ]
    if more:
        raise ConfigError(
            f"{type(model).__name__} has optimizers beside the one that it was compiled with ({', '.join(more)}): "
            "their gradients would stay on their rank, and no checkpoint would hold their state; train it in one "
            "process without checkpoint_dir, or with one optimizer"
        )


def step_of(model: Any, now: Prepared, devices: Devices | None = None) -> steps.Step:
    """The steps of a prepared model; on other devices than it was prepared for, if given."""
    devices = devices or now.devices
    several = devices.world.size > 1
    shares_statistics = several and bool(synchronised_layers(model))
    if shares_statistics and now.retries:
        raise ConfigError(
            'device_batch="auto" and BatchNormalization(synchronized=True) do not go together on several ranks: one '
            "that ran out of memory would keep the others waiting for its statistics; give device_batch a number"
        )
    alarm = now.alarm if several and now.retries else None
    return steps.Step(model, devices, now.trace, now.slices, even=shares_statistics, alarm=alarm)


def _bind(model: Any, now: Prepared) -> None:
    devices, trace = now.devices, now.trace
    step = step_of(model, now)
    cls = type(model)
    if cls.train_step is keras.Model.train_step:
        train_step = functools.partial(steps.Step.train, step)
    else:
        train_step = functools.partial(_own_train_step, model, devices, trace)
    # On the function and not on the model: Keras saves what it finds on a model.
    train_step.prepared = now  # type: ignore[attr-defined]
    model.train_step = train_step
    if cls.test_step is keras.Model.test_step:
        model.test_step = functools.partial(steps.Step.test, replace(step, slices=now.test_slices, alarm=None))
    model.get_metrics_result = functools.partial(_metrics_over_world, model, now)
    model.optimizer.apply = functools.partial(_reduce_and_apply, now)
    bind_losses(model, trace)
    bind_moments(model, devices, trace)
    model.__dict__.pop("make_train_function", None)  # see `retry`
    model.train_function = model.test_function = None


def _own_train_step(model: Any, devices: Devices, trace: Trace, data: Any) -> Any:
    """A train step of the user's own class, with the gradients that it applies weighted by their real samples."""
    compiling()
    _, _, weights = keras.utils.unpack_x_y_sample_weight(data)
    with told(trace, share=steps.real_share(devices, weights)):
        return type(model).train_step(model, data)


def _reduce_and_apply(now: Prepared, grads: Any, trainable_variables: Any = None) -> None:
    """The optimizer's own `apply`, on gradients averaged over the world.

    Before everything that the optimizer does: gradients are then unscaled, clipped and checked for overflow alike on
    every rank. A reduction inside of the loss-scaling optimizer's condition would wait for ever for a rank that skips.
    """
    apply = functools.partial(type(now.optimizer).apply, now.optimizer, trainable_variables=trainable_variables)
    variables = now.optimizer._trainable_variables if trainable_variables is None else list(trainable_variables)
    gradients = [_dense(*pair) for pair in zip(grads, variables, strict=True)]
    if now.devices.world.size == 1:
        apply(now.devices.mean_gradients(gradients, now.trace.share)[0])
    elif now.retries:
        now.alarm.apply_unless_raised(now.devices, gradients, now.trace.share, now.wishes, apply)
    else:
        means, (sums,) = now.devices.mean_gradients(gradients, now.trace.share, [now.wishes.in_step()])
        now.wishes.agree_in_step(sums)
        apply(means)


def _dense(gradient: Any | None, variable: Any) -> Any | None:
    """A gradient as one array, of the shape of what it is for: a message must be of a known length.

    TensorFlow does not know the shape of an embedding's gradient where batches have different lengths. In one process,
    too: of a gradient in parts, some of them of the same row, Keras's Adam would square each part and not their sum.
    """
    if gradient is not None:
        gradient = tf.convert_to_tensor(gradient)
        gradient.set_shape(variable.shape)
    return gradient


def _metrics_over_world(model: Any, now: Prepared) -> Any:
    """The model's metrics from the states of all ranks together, within an epoch and at its end.

    A metric's state is declared to be summed over devices, so the sum of the ranks' states is the state of one process
    that saw all samples. The average of the ranks' results is not (AUC, unequal numbers of samples).
    """
    own = functools.partial(type(model).get_metrics_result, model)
    devices = now.devices
    if devices.world.size * devices.replicas == 1 or not now.trace.over_world:
        return own()
    if not tf.executing_eagerly() and tf.distribute.in_cross_replica_context():
        return own()  # Keras builds the model, and computes nothing
    states = states_to_sum(model)
    if tf.executing_eagerly():  # between steps, where Keras has summed over the replicas
        if devices.world.size == 1:
            return own()
        local: list[Any] = [np.asarray(state.numpy()) for state in states]
        sums: list[Any] = devices.sum_arrays(local)
    else:
        local = [tf.convert_to_tensor(state.value) for state in states]
        with tf.control_dependencies(now.alarm.after_gradients() if now.retries else []):
            sums = devices.sum_in_step([tf.identity(state) for state in local], name="metrics")
    assign(states, sums)
    try:
        return own()
    finally:
        assign(states, local)


def states_to_sum(model: Any) -> list[Any]:
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


def assign(variables: Sequence[Any], values: Sequence[Any]) -> None:
    """Give Keras variables new values."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
