"""A training that is broken off and goes on.

resume.py IMAGES OUT

Everything that a checkpoint has to hold takes part: batch normalisation, dropout, metrics of more than one state, an
optimizer with moments, callbacks that count, a rate that a callback lowers, the random generators of Python and NumPy.
Settings come from the environment: `EVERY` for checkpoint_every; `END="RANK:STEP:SIGNAL"` sends a signal to that rank
(`*` for each; `launcher` for its parent) after that step of the training, `END="RANK:vSTEP:SIGNAL"` within the
validation; `GRACE`; `EPOCHS`; `PLAIN=1` for a model without what depends on the number of ranks;
`SLEEP` seconds in a callback from the fourth epoch on; `SEED` of the shuffling.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import dist_loader as dl

GLOBAL_BATCH = 12


class Ending(keras.callbacks.Callback):
    """Sends a signal to its own process after a step of the training."""

    def __init__(self, rank: int, plan: str) -> None:
        super().__init__()
        if os.environ.get("DIST_LOADER_RESTARTS", "0") != "0":
            plan = ""  # once is enough
        who, self.at, name = plan.split(":") if plan else ("", "", "")
        self.mine = who in ("*", str(rank)) or (who == "launcher" and rank == 0)
        self.target = os.getppid() if who == "launcher" else os.getpid()
        self.signal = getattr(signal, name) if name else 0

    def send(self) -> None:
        os.kill(self.target, self.signal)
        if self.target != os.getpid():
            time.sleep(60)  # to be ended with the launcher

    def on_train_batch_end(self, batch, logs=None):
        if self.mine and self.at == str(int(self.model.optimizer.iterations.numpy())):
            self.send()

    def on_test_batch_end(self, batch, logs=None):
        if self.mine and self.at == f"v{int(self.model.optimizer.iterations.numpy())}":
            self.send()


class Sleeping(keras.callbacks.Callback):
    """Takes its time."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= 3 and os.environ.get("SLEEP"):
            print("asleep", flush=True)
            time.sleep(float(os.environ["SLEEP"]))


class Draws(keras.callbacks.Callback):
    """What the random generators of Python and NumPy gave in each step, and a counter of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn = []
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        self.drawn.append([batch, random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()])  # noqa: NPY002


def build() -> keras.Model:
    images = keras.Input((8, 8, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(images)
    x = keras.layers.Conv2D(4, 3, use_bias=False)(x)
    if not os.environ.get("PLAIN"):
        x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Flatten()(keras.layers.Activation("relu")(x))
    if not os.environ.get("PLAIN"):
        x = keras.layers.Dropout(0.3)(x)
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(x))


def main(images: str, out: str) -> None:
    strategy = dl.init()
    rank = strategy.world.rank
    tf.config.experimental.enable_op_determinism()
    index = dl.Index.from_directory(images).take(np.arange(50))
    keras.utils.set_random_seed(7)
    random.seed(rank)
    how = {"size": (8, 8), "color": "grayscale", "host_batch": 60, "strategy": strategy}
    how["seed"] = int(os.environ.get("SEED") or 0)
    devices = strategy.world.size * strategy.replicas
    train = dl.ImageSequence(index, device_batch=GLOBAL_BATCH // devices, crop="random-resized", **how)
    valid = dl.ImageSequence(index.take(np.arange(40)), device_batch=1, shuffle=False, **how)
    with strategy.scope():
        model = build()
        model.compile(
            keras.optimizers.Adam(0.01),
            "sparse_categorical_crossentropy",
            metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2)],
        )
    draws = Draws()
    callbacks = [
        draws,
        Sleeping(),
        Ending(rank, os.environ.get("END", "")),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=10),
        keras.callbacks.EarlyStopping("loss", patience=20, restore_best_weights=True),
        keras.callbacks.ModelCheckpoint(Path(out) / "best.keras", "val_loss", save_best_only=True),
    ]
    history = strategy.fit(
        model,
        train,
        validation_data=valid,
        epochs=int(os.environ.get("EPOCHS") or 3),
        checkpoint_dir=Path(out) / "checkpoints",
        checkpoint_every=os.environ.get("EVERY", "2"),
        grace=float(os.environ.get("GRACE", "25")),
        callbacks=callbacks,
        verbose=2,
    )
    seen = {
        "history": history.history,
        "epochs": history.epoch,
        "drawn": draws.drawn,
        "steps": draws.steps,
        "rate": float(model.optimizer.learning_rate.numpy()),
        "epochs in summary": history.summary.epochs,
    }
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(seen))
    np.savez(Path(out) / f"rank-{rank}.npz", *model.get_weights(), *[v.numpy() for v in model.optimizer.variables])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
