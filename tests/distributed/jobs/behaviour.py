"""What a user does around one training: callbacks, compiling again, predicting. Each rank writes what it saw.

behaviour.py IMAGES OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras
import numpy as np

import dist_loader as dl


class StopOnRankOne(keras.callbacks.Callback):
    """Stops the training in the middle of an epoch, on one rank."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank
        self.steps = 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.rank == 1 and self.steps == 2:
            self.model.stop_training = True


class Spoil(keras.callbacks.Callback):
    """Makes the loss of one rank not a number."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def on_train_batch_begin(self, batch, logs=None):
        if self.rank == 1 and batch == 1:
            kernel = self.model.layers[-1].kernel
            kernel.assign(np.full(kernel.shape, np.nan))


class Notes(keras.callbacks.Callback):
    """A user's callback that writes a file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch, logs=None):
        with self.path.open("a") as file:
            file.write(f"{epoch}\n")


def main(images: str, out: str) -> None:
    """Everything, one after the other, in one process."""
    folder = Path(out)
    strategy = dl.init()
    rank, size = strategy.world.rank, strategy.world.size
    index = dl.Index.from_directory(images)
    how = {"size": (8, 8), "device_batch": 4, "host_batch": 60, "color": "grayscale", "strategy": strategy}
    train = dl.ImageSequence(index, **how)
    valid = dl.ImageSequence(index.take(np.arange(50)), **how)
    seen: dict = {}

    model = build(strategy)
    history = strategy.fit(
        model,
        train,
        validation_data=valid,
        epochs=6,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10),
            keras.callbacks.ModelCheckpoint(folder / f"best-{rank}.keras", save_best_only=True),
            keras.callbacks.CSVLogger(str(folder / f"log-{rank}.csv")),
            keras.callbacks.TensorBoard(str(folder / f"board-{rank}")),
            keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=0, min_delta=10, cooldown=0),
            dl.on_rank_zero(Notes(folder / "notes.txt")),
        ],
    )
    seen["early stopping"] = history.epoch
    seen["history"] = history.history
    seen["learning rate"] = float(model.optimizer.learning_rate.numpy())

    rates = []
    model = build(strategy)
    strategy.fit(
        model,
        train,
        epochs=3,
        verbose=0,
        callbacks=[
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: rates.append(float(model.optimizer.learning_rate.numpy()))
            ),
        ],
    )
    seen["scheduled rates"] = rates

    stop = StopOnRankOne(rank)
    model = build(strategy)
    strategy.fit(model, train, epochs=2, verbose=0, callbacks=[stop])
    seen["steps before the stop"] = stop.steps

    spoilt = build(strategy)
    history = strategy.fit(
        spoilt, train, epochs=3, verbose=0, callbacks=[Spoil(rank), keras.callbacks.TerminateOnNaN()]
    )
    seen["epochs with nan"] = len(history.epoch)

    # Twice, compiled anew, and another model between: what is reduced twice would differ.
    model = build(strategy)
    strategy.fit(model, train, epochs=1, verbose=0)
    strategy.fit(build(strategy), train, epochs=1, verbose=0)
    strategy.fit(model, train, epochs=2, verbose=0, callbacks=[])
    with strategy.scope():
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    strategy.fit(model, train, epochs=1, verbose=0)
    seen["after fitting again"] = [float(np.abs(weight).sum()) for weight in model.get_weights()]
    np.savez(folder / f"again-{rank}.npz", *model.get_weights())

    model.save(folder / f"saved-{rank}.keras")
    with strategy.scope():
        loaded = keras.models.load_model(folder / f"saved-{rank}.keras")
    strategy.fit(loaded, train, epochs=1, verbose=0)
    seen["after loading"] = [float(np.abs(weight).sum()) for weight in loaded.get_weights()]

    predicted = strategy.predict(model, valid)
    seen["predicted"] = None if predicted is None else list(predicted.shape)
    if predicted is not None:
        pixels = np.stack(
            [np.asarray(keras.utils.load_img(valid.index.path(n), color_mode="grayscale")) for n in range(50)]
        )
        alone = model.predict(pixels[..., None], verbose=0)
        seen["prediction error"] = float(np.abs(predicted - alone).max())
    strategy.predict(model, valid, out_dir=folder / "outputs")

    seen["unprepared"] = refusal(lambda: build(strategy).fit(train, verbose=0))
    seen["backup"] = refusal(
        lambda: strategy.fit(
            build(strategy), train, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(str(folder / "backup"))]
        )
    )
    seen["unsummable"] = refusal(lambda: strategy.fit(build(strategy, [Largest()]), train, verbose=0))
    seen["multiworker"] = refusal(lambda: dl.init("multiworker"))
    (folder / f"rank-{rank}.json").write_text(json.dumps({**seen, "size": size}))


def build(strategy, metrics=("accuracy",)) -> keras.Model:
    """A small model with batch normalisation."""
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), dtype="uint8"),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(8, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", metrics=list(metrics))
    return model


class Largest(keras.metrics.Metric):
    """A metric whose states of several ranks cannot be summed."""

    def __init__(self, name="largest", **more):
        super().__init__(name=name, **more)
        self.largest = self.add_variable((), initializer="zeros", name="largest", aggregation="mean")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.largest.assign(keras.ops.maximum(self.largest, keras.ops.max(y_pred)))

    def result(self):
        return self.largest


def refusal(call) -> str:
    """The message of the ConfigError that a call raises."""
    try:
        call()
    except dl.ConfigError as error:
        return str(error)
    return "no error"


if __name__ == "__main__":
    main(*sys.argv[1:])
