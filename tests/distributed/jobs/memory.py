"""Training with device_batch="auto" on devices whose memory is smaller than the batch, pretended by a layer.

memory.py IMAGES OUT MODEL REPLICAS

The layer raises what TensorFlow raises when a device has no memory, for more rows at once than `LIMITS` gives for the
rank (one number, or one before and one after step `TURN`). With replicas 0 a single process without limits trains on
the same global batches.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import dist_loader as dl
from tests.distributed.jobs.parity import CASES, GLOBAL_BATCH

TURN = 4
EPOCHS = 2


class Limited(keras.layers.Layer):
    """Hands its input on, if a device has memory for it."""

    def __init__(self, limits: list[int], count: tf.Variable) -> None:
        super().__init__()
        self.limits = limits
        self.count = count

    def call(self, x):
        def check(x):
            limit = self.limits[0 if self.count.numpy() < TURN else -1]
            if len(x) > limit:
                raise MemoryError(f"{len(x)} rows on a device that takes {limit}")
            return x

        shape = x.shape
        x = tf.grad_pass_through(lambda x: tf.numpy_function(check, [x], x.dtype))(x)
        return tf.ensure_shape(x, shape)


def main(images: str, out: str, case: str, replicas: int) -> None:
    """Train, and write what this rank saw."""
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = dl.init("mirrored" if replicas > 1 else "auto")
    rank = strategy.world.rank
    limits = [int(limit) for limit in os.environ["LIMITS"].split(";")[rank].split(",")] if replicas else [1000]
    index = dl.Index.from_directory(images).take(np.arange(50))
    keras.utils.set_random_seed(7)
    more = CASES[case]
    how = {"size": (8, 8), "host_batch": 120, "color": "grayscale", "strategy": strategy}
    sequence = more.get("sequence", dl.ImageSequence)
    train = sequence(index, device_batch="auto" if replicas else GLOBAL_BATCH, global_batch=GLOBAL_BATCH, **how)
    valid = sequence(index, device_batch="auto" if replicas else GLOBAL_BATCH, global_batch=GLOBAL_BATCH, **how)
    with strategy.scope():
        inner = more["model"](3)
        optimizer = more["optimizer"]()
        inputs = keras.Input(inner.inputs[0].shape[1:], dtype=inner.inputs[0].dtype)
        model = keras.Model(inputs, inner(Limited(limits, optimizer.iterations)(inputs)))
        model.compile(optimizer, **more.get("compiled", lambda: {"loss": "sparse_categorical_crossentropy"})())
    said = []
    steps = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: said.append(dict(logs)))
    tested = valid if strategy.world.size == 1 else None  # on several ranks compiling takes long enough as it is
    history = strategy.fit(model, train, validation_data=tested, epochs=EPOCHS, callbacks=[steps], verbose=2)
    seen = {
        "history": history.history,
        "steps": said,
        "device_batch": history.summary.device_batch,
        "global_batch": history.summary.global_batch,
        "updates": int(optimizer.iterations.numpy()),
    }
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(seen))
    np.savez(Path(out) / f"rank-{rank}.npz", *model.get_weights())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
