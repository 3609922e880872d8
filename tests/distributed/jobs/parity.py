"""Train small models on the same global batches, however many processes and devices there are; save what came out.

    parity.py IMAGES OUT REPLICAS CASE...

With 0 REPLICAS it is stock Keras that trains, batch by batch, on the real samples alone. It writes OUT/rank-N.npz and
OUT/rank-N.json: for every case its weights, its history, and what evaluate says.
"""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import dist_loader as dl

GLOBAL_BATCH = 12
EPOCHS = 4


def main(images: str, out: str, replicas: int, names: list[str]) -> None:
    """Run the cases that are named."""
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = None if replicas == 0 else dl.init("mirrored" if replicas > 1 else "auto")
    index = dl.Index.from_directory(images)
    weights, logs = {}, {}
    for name in names:
        arrays, logs[name] = train(strategy, index, **CASES[name])
        weights |= {f"{name}/{at}": value for at, value in enumerate(arrays)}
    rank = strategy.world.rank if strategy else 0
    np.savez(Path(out) / f"rank-{rank}.npz", **weights)
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(logs))


def train(
    strategy,
    index,
    model,
    optimizer,
    samples=60,
    sequence=dl.ImageSequence,
    compiled=None,
    policy="float32",
    slices=1,
    **more,
):
    """Weights and logs of one case."""
    index = index.take(np.random.default_rng(0).permutation(len(index))[:samples])
    # Ranks start from different weights on purpose: the strategy must give all of them rank 0's.
    keras.utils.set_random_seed(7 + 100 * (strategy.world.rank if strategy else 0))
    keras.mixed_precision.set_global_policy(policy)
    at_once = GLOBAL_BATCH // (strategy.world.size * strategy.replicas if strategy else 1)
    slices = slices if at_once % slices == 0 else 1
    how = {"size": (8, 8), "host_batch": 120, "color": "grayscale", "strategy": strategy}
    weighting = {name: more[name](index) for name in ("sample_weight", "class_weight") if name in more}
    train = sequence(index, device_batch=at_once // slices, global_batch=GLOBAL_BATCH, seed=3, **weighting, **how)
    valid = sequence(index, device_batch=at_once, shuffle=False, **how)
    with strategy.scope() if strategy else nullcontext():
        net = model(len(index.classes))
        net.compile(optimizer(), **(compiled or one_output)())
        if "steps_per_execution" in more:
            net.steps_per_execution = more["steps_per_execution"]
    if strategy is None:
        return stock_keras(net, train, valid, weighting)
    steps = []
    noting = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append((batch, dict(logs))))
    history = strategy.fit(net, train, validation_data=valid, epochs=EPOCHS, callbacks=[noting], verbose=0).history
    evaluated = strategy.evaluate(net, valid)
    return net.get_weights(), {"history": history, "evaluate": evaluated, "steps": steps}


def stock_keras(net, train, valid, weighting):
    """Weights and logs of Keras's own steps, on batches without fill."""
    own = train.own_weights if weighting else None
    # Traced, Keras counts the losses of several outputs once a batch where batches differ in length.
    net.run_eagerly = True
    net.reset_metrics = lambda: None  # or each batch would begin by it, and only the last one's numbers be left
    history, steps = {}, []
    for epoch in range(EPOCHS):
        train.epoch = epoch
        type(net).reset_metrics(net)
        for step in range(len(train)):
            x, y, numbers = real_rows(train, step)
            weights = None if own is None else own[numbers]
            logs = net.train_on_batch(x, y, sample_weight=weights, return_dict=True)
            steps.append((step, {name: float(value) for name, value in logs.items()}))
        logs |= {f"val_{name}": value for name, value in tested(net, valid).items()}
        for name, value in logs.items():
            history.setdefault(name, []).append(float(value))
    net.optimizer.finalize_variable_values(net.trainable_weights)
    return net.get_weights(), {"history": history, "evaluate": tested(net, valid), "steps": steps}


def tested(net, valid) -> dict:
    """What stock Keras says of all validation samples."""
    type(net).reset_metrics(net)
    for step in range(len(valid)):
        x, y, _ = real_rows(valid, step)
        logs = net.test_on_batch(x, y, return_dict=True)
    return {name: float(value) for name, value in logs.items()}


def real_rows(sequence, step):
    """Inputs, targets and sample numbers of a step, without the fill."""
    numbers, weights = sequence.plan.batch(sequence.epoch, step, 0)
    x, y, *_ = sequence[step]
    rows = weights > 0
    return *keras.tree.map_structure(lambda array: array[rows], (x, y)), numbers[rows]


def one_output() -> dict:
    """Losses and metrics of a classifier."""
    return {
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        "weighted_metrics": [keras.metrics.SparseCategoricalAccuracy(name="weighted")],
    }


def scalars() -> dict:
    """Metrics whose states are no simple means."""
    return {
        "loss": keras.losses.MeanSquaredError(),
        "metrics": [
            keras.metrics.R2Score(),
            keras.metrics.RootMeanSquaredError(),
            keras.metrics.AUC(thresholds=[0.3, 0.5, 0.7], name="auc"),
            keras.metrics.Precision(name="precision"),
            keras.metrics.Recall(name="recall"),
            keras.metrics.BinaryIoU(name="iou"),
        ],
    }


def summed() -> dict:
    """A loss that is summed over the batch."""
    return {"loss": keras.losses.SparseCategoricalCrossentropy(reduction="sum"), "metrics": ["accuracy"]}


def over_weights() -> dict:
    """A loss that is divided by the sum of the weights."""
    reduction = "mean_with_sample_weight"
    return {"loss": keras.losses.SparseCategoricalCrossentropy(reduction=reduction), "metrics": ["accuracy"]}


def two_outputs() -> dict:
    """Several losses with weights of their own."""
    return {
        "loss": {"kind": "sparse_categorical_crossentropy", "shade": "mse"},
        "loss_weights": {"kind": 1.0, "shade": 0.3},
        "metrics": {"kind": ["accuracy"], "shade": ["mae"]},
    }


def tokens() -> dict:
    """A loss for every token."""
    return {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


def dense(classes: int) -> keras.Model:
    """A small convolutional net with a regulariser, whose loss the fill must not scale."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(1e-2)),
            keras.layers.Activation("softmax", dtype="float32"),
        ]
    )


def regression(classes: int) -> keras.Model:
    """One number for an image."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


def normalised(classes: int) -> keras.Model:
    """Batch normalisation over all ranks."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(synchronized=True, momentum=0.8),
            keras.layers.Activation("relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, kernel_regularizer=keras.regularizers.L2(1e-2)),
            keras.layers.Activation("softmax", dtype="float32"),
        ]
    )


def embedding(classes: int) -> keras.Model:
    """Pixels as tokens: gradients of the embedding are sparse."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Embedding(256, 6),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, activation="softmax"),
        ]
    )


def masked(classes: int) -> keras.Model:
    """A class for every token, of which those that are 0 are masked."""
    pixels = keras.Input((64,), dtype="int32")
    x = keras.layers.Embedding(256, 6, mask_zero=True)(pixels)
    return keras.Model(pixels, keras.layers.Dense(4, activation="softmax")(x))


def two_inputs_and_outputs(classes: int) -> keras.Model:
    """Two images in, a class and a number out."""
    inputs = {name: keras.Input((8, 8, 1), dtype="uint8", name=name) for name in ("image", "negative")}
    parts = [keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(part)) for part in inputs.values()]
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()(parts))
    return keras.Model(
        inputs,
        {
            "kind": keras.layers.Dense(classes, activation="softmax", name="kind")(x),
            "shade": keras.layers.Dense(1, name="shade")(x),
        },
    )


class Shades(dl.ImageSequence):
    """Whether an image is of the last class, as a number."""

    def __getitem__(self, step):
        images, labels, *weights = super().__getitem__(step)
        return images, (labels == 2).astype(np.float32)[:, None], *weights


class Tokens(dl.ImageSequence):
    """Pixels as tokens, dark ones masked; a target for every token."""

    def __getitem__(self, step):
        images, _, *weights = super().__getitem__(step)
        pixels = images.reshape(len(images), 64).astype(np.int32)
        return np.where(pixels < 100, 0, pixels), pixels // 64, *weights


class Pairs(dl.ImageSequence):
    """Named inputs and outputs."""

    def __getitem__(self, step):
        images, labels, *weights = super().__getitem__(step)
        shade = images.mean(axis=(1, 2)) / 255
        return {"image": images, "negative": 255 - images}, {"kind": labels, "shade": shade}, *weights


def sgd(**more) -> keras.optimizers.Optimizer:
    """Stochastic gradient descent with momentum."""
    return keras.optimizers.SGD(0.05, momentum=0.9, **more)


def overflowing() -> keras.optimizers.Optimizer:
    """A loss scale so large that the heaviest samples overflow, on their ranks alone."""
    return keras.optimizers.LossScaleOptimizer(sgd(), initial_scale=2.0**13, dynamic_growth_steps=1000)


def by_number(index) -> np.ndarray:
    """Weights from 0 to 2."""
    return np.arange(len(index)) % 5 / 2


def one_heavy(index) -> np.ndarray:
    """Weights of 1, and some that make the gradients of their rank overflow."""
    return np.where(np.arange(len(index)) % 20 == 3, 1e5, 1.0)


CASES = {
    "sgd": {"model": dense, "optimizer": sgd},
    "adam": {"model": dense, "optimizer": lambda: keras.optimizers.Adam(3e-3)},
    "adamw": {"model": dense, "optimizer": lambda: keras.optimizers.AdamW(3e-3, weight_decay=0.02)},
    "ema": {"model": dense, "optimizer": lambda: sgd(use_ema=True, ema_momentum=0.9)},
    "clipnorm": {"model": dense, "optimizer": lambda: sgd(clipnorm=0.1)},
    "adam-global-clipnorm": {"model": dense, "optimizer": lambda: keras.optimizers.Adam(3e-3, global_clipnorm=0.5)},
    "clipvalue": {"model": dense, "optimizer": lambda: sgd(clipvalue=0.01)},
    "embedding": {"model": embedding, "optimizer": sgd},
    "sample-weights": {"model": dense, "optimizer": sgd, "sample_weight": by_number, "samples": 50},
    "class-weights": {"model": dense, "optimizer": sgd, "class_weight": lambda index: {0: 3.0, 2: 0.5}},
    "masks": {"model": masked, "optimizer": sgd, "sequence": Tokens, "compiled": tokens, "samples": 50},
    "summed-loss": {"model": dense, "optimizer": lambda: sgd(clipnorm=1.0), "compiled": summed, "samples": 50},
    "mean-over-weights": {
        "model": dense,
        "optimizer": sgd,
        "compiled": over_weights,
        "samples": 50,
        "sample_weight": by_number,
    },
    "two-inputs-and-outputs": {
        "model": two_inputs_and_outputs,
        "optimizer": sgd,
        "sequence": Pairs,
        "compiled": two_outputs,
        "samples": 50,
    },
    "metrics": {"model": regression, "optimizer": sgd, "sequence": Shades, "compiled": scalars, "samples": 50},
    "one-sample-in-the-last-step": {"model": dense, "optimizer": sgd, "samples": 37},
    "two-samples-in-the-last-step": {"model": dense, "optimizer": sgd, "samples": 38},
    "one-missing-in-the-last-step": {"model": dense, "optimizer": sgd, "samples": 35},
    "fewer-samples-than-ranks": {"model": dense, "optimizer": sgd, "samples": 2},
    "steps-per-execution": {"model": dense, "optimizer": sgd, "samples": 40, "steps_per_execution": 3},
    "slices": {"model": dense, "optimizer": lambda: sgd(global_clipnorm=0.5), "samples": 50, "slices": 3},
    "slices-masks": {
        "model": masked,
        "optimizer": sgd,
        "sequence": Tokens,
        "compiled": tokens,
        "samples": 50,
        "slices": 3,
    },
    "slices-mean-over-weights": {
        "model": dense,
        "optimizer": sgd,
        "compiled": over_weights,
        "samples": 50,
        "sample_weight": by_number,
        "slices": 3,
    },
    "slices-summed-loss": {"model": dense, "optimizer": sgd, "compiled": summed, "samples": 50, "slices": 2},
    "slices-two-outputs": {
        "model": two_inputs_and_outputs,
        "optimizer": sgd,
        "sequence": Pairs,
        "compiled": two_outputs,
        "samples": 50,
        "slices": 3,
    },
    "batch-normalisation": {"model": normalised, "optimizer": sgd, "samples": 51},
    "mixed-float16": {"model": dense, "optimizer": sgd, "policy": "mixed_float16"},
    "mixed-bfloat16": {"model": dense, "optimizer": sgd, "policy": "mixed_bfloat16"},
    "overflow-on-one-rank": {
        "model": dense,
        "optimizer": overflowing,
        "policy": "mixed_float16",
        "sample_weight": one_heavy,
    },
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
