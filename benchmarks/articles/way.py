"""One way to train, in a process of its own: python -m benchmarks.articles.way WAY FOLDER BATCH EPOCHS.

Rank 0 prints a line of JSON: seconds from the first sample to the last update, of each epoch, and the peak memory.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

import dist_loader as dl
from benchmarks.articles import originals
from benchmarks.articles.originals import SIZE

SHAPE = (SIZE, SIZE, 3)


def model_of(scaled: bool) -> keras.Model:
    """MobileNetV2; the articles' samples are scaled already."""
    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV2(weights=None, classes=10, input_shape=SHAPE)
    layers = [] if scaled else [keras.layers.Rescaling(1 / 127.5, offset=-1)]
    model = keras.Sequential([keras.Input(SHAPE), *layers, network])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    return model


class Epochs(keras.callbacks.Callback):  # type: ignore[misc]
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._since = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._since = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._since)


def original(way: str, index: dl.Index, batch: int, epochs: int) -> list[float]:
    """The articles' ways; on several ranks each has every n-th sample, and a loop as Horovod's documentation shows."""
    world = dl.World.detect()
    numbers = range(world.rank, len(index), world.size)
    paths, labels = [index.path(number) for number in numbers], index.labels[world.rank :: world.size]
    data: Any
    if way == "original-memory":
        data = originals.read_all(paths, labels)
    else:
        data = (originals.Table(paths, labels, batch, 4 if way.endswith("4") else 0),)
    if world.size > 1:  # Horovod's threads run already: processes that are forked now hang (seen: no end in 4 minutes)
        multiprocessing.set_start_method("spawn")
    model = model_of(scaled=True)
    clock = Epochs()
    if world.size == 1:
        model.fit(*data, batch_size=batch if len(data) > 1 else None, epochs=epochs, callbacks=[clock], verbose=0)
        return clock.seconds
    return by_hand(model, data, batch, epochs, clock)


def by_hand(model: keras.Model, data: Any, batch: int, epochs: int, clock: Epochs) -> list[float]:
    """A loop around `hvd.DistributedGradientTape`."""
    import horovod.tensorflow as hvd
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    hvd.init()
    model.optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    hvd.broadcast_variables([variable.value for variable in model.weights], root_rank=0)

    @tf.function  # type: ignore[untyped-decorator]
    def step(images: tf.Tensor, labels: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        weights = [weight.value for weight in model.trainable_weights]
        gradients = hvd.DistributedGradientTape(tape).gradient(loss, weights)
        model.optimizer.apply(gradients, model.trainable_variables)

    adapter = PyDatasetAdapter(data[0], class_weight=None, shuffle=True) if len(data) == 1 else None
    for epoch in range(epochs):
        clock.on_epoch_begin(epoch)
        if adapter is not None:
            adapter.on_epoch_begin()
            batches = adapter.get_tf_dataset().take(len(data[0]))
        else:
            batches = tf.data.Dataset.from_tensor_slices(data).shuffle(len(data[0])).batch(batch, drop_remainder=True)
        for images, labels in batches:
            step(images, labels)
        if adapter is not None:
            adapter.on_epoch_end()
        clock.on_epoch_end(epoch)
    return clock.seconds


def ours(way: str, index: dl.Index, batch: int, epochs: int, scratch: str) -> list[float]:
    """What this project offers for the same."""
    strategy = dl.init()
    train: Any
    if way == "ours-memory":
        whole = dl.ImageSequence(index, SHAPE[:2], len(index), shuffle=False, world=dl.World(0, 1, 0, 1))
        x, y = whole[0]
        train = dl.ArraySequence(x, y, device_batch=batch, strategy=strategy)
    else:
        cache = scratch if way == "ours-cache" else None
        train = dl.ImageSequence(index, SHAPE[:2], batch, cache=cache, strategy=strategy)
    with strategy.scope():
        model = model_of(scaled=False)
    clock = Epochs()
    strategy.fit(model, train, epochs=epochs, callbacks=[clock], verbose=0)
    return clock.seconds


def main(way: str, folder: str, batch: str, epochs: str) -> None:
    """Train, and tell."""
    world = dl.World.detect()
    tf.config.threading.set_intra_op_parallelism_threads(max(1, len(os.sched_getaffinity(0)) // world.size))
    index = dl.Index.from_directory(folder)
    index = index.take(np.arange(min(len(index), 1000)))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        if way.startswith("original"):
            seconds = original(way, index, int(batch), int(epochs))
        else:
            seconds = ours(way, index, int(batch), int(epochs), scratch)
    if world.rank == 0:
        whole = time.perf_counter() - started
        print(json.dumps({"way": way, "seconds": whole, "epochs": seconds, "samples": len(index)}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
