#!/usr/bin/env python3
"""Time of a train step on several ranks: ours beside a hand-written Horovod loop; groups and compressions tried.

    horovodrun -np 2 python benchmarks/reduction.py

Each way trains a model of its own on the same batches, and the ways take turns: so many steps each, round after round.
The figure of a way is the median over the rounds of its median step; a step is from one update to the next.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import horovod
import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import dist_loader as dl
from dist_loader.devices.averaging import Compression
from dist_loader.devices.horovod import HorovodDevices

RESULTS = Path(__file__).parent / "results"
GROUPS = (1, 2, 4, 8, 16, 1000)  # the last: every gradient by itself
HAND_WRITTEN = "hand-written Horovod tape loop"


def mobile_net() -> keras.Model:
    """Many small gradients, much computing for each."""
    images = keras.Input((96, 96, 3), dtype="uint8")
    network = keras.applications.MobileNetV2(weights=None, classes=3, input_shape=(96, 96, 3), alpha=0.5)
    return keras.Model(images, network(keras.layers.Rescaling(1 / 127.5, offset=-1)(images)))


def dense_layers() -> keras.Model:
    """Few large gradients, little computing for each: what a slow network looks like."""
    layers = [keras.Input((96, 96, 3), dtype="uint8"), keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.AveragePooling2D(4), keras.layers.Flatten()]
    layers += [keras.layers.Dense(1536, activation="relu") for _ in range(5)]
    return keras.Sequential([*layers, keras.layers.Dense(3, activation="softmax")])


MODELS: dict[str, Callable[[], keras.Model]] = {"MobileNetV2": mobile_net, "dense layers": dense_layers}


def compiled(build: Callable[[], keras.Model]) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = build()
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def hand_written(build: Callable[[], keras.Model], sequence: dl.ImageSequence) -> Callable[[], list[float]]:
    """What Horovod's documentation shows for TensorFlow 2, with a Keras 3 model and optimizer."""
    model = compiled(build)
    model.optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy()
    hvd.broadcast_variables([variable.value for variable in model.weights], root_rank=0)

    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = loss_of(labels, model(images, training=True))
        tape = hvd.DistributedGradientTape(tape)
        weights = [weight.value for weight in model.trainable_weights]
        model.optimizer.apply(tape.gradient(loss, weights), model.trainable_variables)
        return loss

    compiled_step = tf.function(step)

    def one_round() -> list[float]:
        at = []
        for images, labels in sequence.get_tf_dataset():
            compiled_step(images, labels).numpy()
            at.append(time.perf_counter())
        return at

    return one_round


def ours(
    devices: HorovodDevices, build: Callable[[], keras.Model], sequence: dl.ImageSequence
) -> Callable[[], list[float]]:
    """`Strategy.fit`."""
    strategy = dl.Strategy(devices)
    model = compiled(build)

    def one_round() -> list[float]:
        at: list[float] = []
        clock = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: at.append(time.perf_counter()))
        strategy.fit(model, sequence, epochs=1, callbacks=[clock], verbose=0)
        return at

    return one_round


def write_images(folder: Path, number: int) -> None:
    rng = np.random.default_rng(0)
    for at in range(number):
        target = folder / "abc"[at % 3] / f"{at}.png"
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(target)


def main() -> None:
    """Measure, and on rank 0 print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20, help="in a round of each way")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8, help="of a rank")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)  # a core for each rank
    strategy = dl.init("horovod")
    world = strategy.world
    with tempfile.TemporaryDirectory() as scratch:
        write_images(Path(scratch), args.steps * args.batch * world.size)
        devices = strategy.devices
        assert isinstance(devices, HorovodDevices)
        index = dl.Index.from_directory(scratch)
        sequence = dl.ImageSequence(index, (96, 96), args.batch, strategy=strategy)
        results = {name: measured(build, devices, sequence, args.rounds) for name, build in MODELS.items()}
    if world.chief:
        report(results, world.size, args.batch)


def measured(
    build: Callable[[], keras.Model], devices: HorovodDevices, sequence: dl.ImageSequence, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of the median step, by way and round."""
    ways = {HAND_WRITTEN: hand_written(build, sequence)}
    for groups in GROUPS:
        name = f"ours, {groups} groups{' (the default)' if groups == devices.groups else ''}"
        ways[name] = ours(replace(devices, groups=groups), build, sequence)
    compressions: tuple[Compression, ...] = ("fp16", "bf16")
    for compression in compressions:
        ways[f"ours, {compression}"] = ours(replace(devices, compression=compression), build, sequence)
    steps: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):  # the first compiles
        for name, one_round in ways.items():
            at = one_round()
            if number:
                steps[name].append(1e3 * statistics.median(np.diff(at)))
        if devices.world.chief:
            print(f"round {number} of {rounds}", flush=True)
    return steps


def report(results: dict[str, dict[str, list[float]]], ranks: int, batch: int) -> None:
    facts = {
        "ranks": ranks,
        "cores": len(os.sched_getaffinity(0)),
        "batch of a rank": batch,
        "machine": platform.platform(),
        "transport": "MPI" if hvd.mpi_enabled() else "Gloo",
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "horovod": horovod.__version__,
    }
    lines = [f"{', '.join(f'{name} {value}' for name, value in facts.items())}", ""]
    for model, steps in results.items():
        lines += [f"## {model}", "", "| way | ms a step | hand-written / this |", "|---|---|---|"]
        by_hand = steps[HAND_WRITTEN]
        for name, values in steps.items():
            ratio = statistics.median(hand / value for hand, value in zip(by_hand, values, strict=True))
            lines.append(f"| {name} | {statistics.median(values):.1f} | {ratio:.3f} |")
        lines.append("")
    text = "\n".join(lines)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "reduction.md").write_text(f"# Time of a train step\n\n{text}", encoding="utf-8")
    (RESULTS / "reduction.json").write_text(json.dumps({"facts": facts, "ms": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
