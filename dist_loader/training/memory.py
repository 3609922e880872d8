"""Running out of a device's memory: telling it, and finding the largest slice that does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.devices.single import SingleDevice
from dist_loader.errors import ConfigError
from dist_loader.training.prepare import Prepared, assign, step_of
from dist_loader.world import World

# What libraries beside TensorFlow say (cuBLAS, cuDNN, the CUDA driver), and Keras, which passes on the words alone.
_WORDS = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OOM when allocating", "ALLOC_FAILED", "CUDA_ERROR_OUT_OF_MEMORY")

_FUSION_BYTES = 128 << 20  # that Horovod takes for its messages, at the first one


def ran_out(error: BaseException) -> bool:
    """Whether an error says that a device has no more memory."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, tf.errors.ResourceExhaustedError | MemoryError):
            return True
        if isinstance(found, tf.errors.OpError | RuntimeError) and any(word in str(found) for word in _WORDS):
            return True
        found = found.__cause__ or found.__context__
    return False


def smaller(rows: int, slices: int) -> int | None:
    """The number of equal slices of so many rows of which each is at most half as long; None if there is none."""
    return next((number for number in range(2 * slices, rows + 1) if rows % number == 0), None)


def changed_by_slices(model: Any) -> list[Any]:
    """The variables that computing a slice changes, before the step's one update."""
    return [*model.non_trainable_variables, *model.metrics_variables]


def fewest_slices(model: Any, now: Prepared, batch: Any, say: Callable[[str], object]) -> int:
    """The fewest slices in which this process's devices can compute the gradients of a batch.

    It tries, from the whole batch on, halving. It sends nothing to other ranks and changes no variable.

    Args:
        model: a prepared model.
        now: what it was prepared for.
        batch: arrays of one process's step: x, y and, where there are any, weights.
        say: gets a line for every size that does not fit.

    Raises:
        ConfigError: not even one sample fits.
    """
    rows = len(keras.tree.flatten(batch)[0]) // now.devices.replicas
    one_device = keras.tree.map_structure(lambda array: tf.constant(array[:rows]), batch)
    slices: int | None = 1
    while slices is not None:
        try:
            _compute(model, now, slices, one_device)
        except Exception as error:
            if not ran_out(error):
                raise
            say(f"no memory for {rows // slices} samples at once")
            slices = smaller(rows, slices)
        else:
            return slices
    raise ConfigError('device_batch="auto": not even one sample fits into the device\'s memory')


def _compute(model: Any, now: Prepared, slices: int, batch: Any) -> None:
    """Compute gradients as a step does, and forget them."""
    local = now.devices if now.devices.world.size == 1 else SingleDevice(World(0, 1, 0, 1))
    step = step_of(model, replace(now, devices=local, slices=slices, retries=False))

    def on_replica(data: Any) -> list[Any]:
        return step.gradients(keras.utils.unpack_x_y_sample_weight(data))[0]

    gradients = tf.function(lambda data: model.distribute_strategy.run(on_replica, args=(data,)), autograph=False)

    changed = changed_by_slices(model)
    before = [np.asarray(variable.numpy()) for variable in changed]
    try:
        kept_free = _as_much_as_horovod_takes(model) if now.devices.name == "horovod" else None
        gradients(batch)
        del kept_free
    finally:
        assign(changed, before)


def _as_much_as_horovod_takes(model: Any) -> Any:
    """So much memory of a GPU as messages with all gradients take; None on a CPU."""
    if not tf.config.list_logical_devices("GPU"):
        return None
    return tf.zeros([_FUSION_BYTES + sum(4 * math.prod(weight.shape) for weight in model.trainable_weights)], tf.uint8)
