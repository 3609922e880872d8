"""Ranks that differ, and a training that is slow and well. Each rank writes what it saw.

refusals.py IMAGES OUT refused|slow
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

import dist_loader as dl
from dist_loader.readers.image import ImageReader

LIMIT = 5.0


def main(images: str, out: str, what: str) -> None:
    """Everything, one after the other, in one process."""
    strategy = dl.init(watchdog=LIMIT)
    rank = strategy.world.rank
    logging.basicConfig(filename=Path(out) / f"rank-{rank}.log", level=logging.INFO)
    index = dl.Index.from_directory(images)
    how = {"size": (8, 8), "device_batch": 4, "host_batch": 60, "color": "grayscale", "strategy": strategy}
    last = rank == strategy.world.size - 1

    seen = refused(strategy, index, how, last) if what == "refused" else slow(strategy, index, how, last)
    seen["threads"] = [thread.name for thread in threading.enumerate() if "watchdog" in thread.name]
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(seen))


def refused(strategy, index, how: dict, last: bool) -> dict:
    """What is said when the last rank differs."""

    def refusal(epochs: int = 1, samples=index, model=None, valid=None, watchdog=LIMIT, **more) -> str:
        train = dl.ImageSequence(samples, **how | more)
        model = build(strategy) if model is None else model
        try:
            dl.Strategy(strategy.devices, watchdog).fit(model, train, valid, epochs=epochs, verbose=0)
        except dl.ConfigError as error:
            return str(error)
        return "no error"

    seen = {
        "seed": refusal(seed=7 if last else 0),
        "index": refusal(samples=index.take(np.arange(59)) if last else index),
        "batch": refusal(device_batch=2 if last else 4),
        "auto": refusal(device_batch="auto" if last else 4, global_batch=8),
        "epochs": refusal(epochs=2 if last else 1),
        "pixels": refusal(resize="nearest" if last else "bilinear"),
        "validation": refusal(valid=dl.ImageSequence(index, **how) if last else None),
        "shapes": refusal(model=build(strategy, units=5 if last else 4)),
        "layers": refusal(model=build(strategy, activation="tanh" if last else "relu")),
        "optimizer": refusal(model=build(strategy, rate=0.1 if last else 0.2)),
        "loss": refusal(
            model=build(strategy, loss="mean_squared_error" if last else "sparse_categorical_crossentropy")
        ),
        "watchdog": refusal(watchdog=None if last else LIMIT),
    }
    train = dl.ImageSequence(index, **how)
    try:
        model = build(strategy)
        strategy.fit(model, train, verbose=0) if last else strategy.evaluate(model, train)
    except dl.ConfigError as error:
        seen["call"] = str(error)

    # Other layers were numbered before on one rank, which makes no other model.
    if last:
        keras.layers.Dense(1)
    seen["names"] = refusal()

    return seen


def slow(strategy, index, how: dict, last: bool) -> dict:
    """A training whose last rank is slow wherever it may be: it is waited for."""
    train, valid, other = (dl.ImageSequence(index, **how) for _ in range(3))
    strategy.evaluate(build(strategy), train)
    before = sum(link.startswith("socket:") for link in links())
    read = ImageReader.read

    def slowly(self, numbers, epoch, out):
        if last and 0 in numbers:
            time.sleep(0.25 * LIMIT)
        return read(self, numbers, epoch, out)

    ImageReader.read = slowly
    model = build(strategy, compiling=1.5 * LIMIT if last else 0.0)
    evaluated = []

    class Slow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if last:
                time.sleep(0.6 * LIMIT)
            evaluated.append(strategy.evaluate(model, other)["loss"])

    history = strategy.fit(model, train, valid, epochs=2, verbose=0, callbacks=[Slow()])
    strategy.predict(model, other)
    ImageReader.read = read
    sockets = sum(link.startswith("socket:") for link in links()) - before
    return {"epochs": history.epoch, "evaluated": evaluated, "sockets": sockets}


class SlowToCompile(keras.layers.Layer):
    """Takes its time when TensorFlow traces it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def call(self, inputs):
        time.sleep(self.seconds / 4)  # it is traced some times
        return inputs

    def get_config(self):
        return {}


def build(strategy, units=4, activation="relu", rate=0.05, loss="sparse_categorical_crossentropy", compiling=0.0):
    """A small model."""
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), dtype="uint8"),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                SlowToCompile(compiling),
                keras.layers.Dense(units, activation=activation),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.SGD(rate), loss)
    return model


def links() -> list[str]:
    """What this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
