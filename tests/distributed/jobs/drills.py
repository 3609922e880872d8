"""A training in which a rank comes to harm.

drills.py IMAGES OUT HARM RANK [SECONDS]: in step 3 of epoch 1 the rank of that number stops, sleeps, dies, ...; SECONDS
is the watchdog's limit.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras

import dist_loader as dl
from dist_loader.readers.image import ImageReader


class Harm(keras.callbacks.Callback):
    """Does harm in the third step."""

    def __init__(self, harm: str) -> None:
        super().__init__()
        self.harm = harm

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            if self.harm != "none":
                time.sleep(1.5)  # so that rank 0 has heard of this step
            if self.harm == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif self.harm == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.harm == "sleep":
                time.sleep(600)
            elif self.harm == "raise":
                raise KeyError("what a user's callback does not find")


def main(images: str, out: str, harm: str, victim: str, seconds: str = "3") -> None:
    """A training of a hundred epochs."""
    strategy = dl.init(watchdog=float(seconds))
    rank = strategy.world.rank
    harm = harm if rank == int(victim) else "none"
    logging.basicConfig(filename=Path(out) / f"rank-{rank}.log", level=logging.INFO)
    (Path(out) / f"rank-{rank}.pid").write_text(str(os.getpid()))
    if harm in ("loader fails", "loader hangs"):
        spoil(harm)
    index = dl.Index.from_directory(images)
    train = dl.ImageSequence(
        index, (8, 8), 4, host_batch=4, color="grayscale", strategy=strategy, seed=int(harm == "other seed")
    )
    model = build(strategy)
    strategy.fit(model, train, epochs=100, verbose=0, callbacks=[Harm(harm)])


def spoil(harm: str) -> None:
    """Let the reading of images fail or hang from the second on."""
    read, calls = ImageReader.read, []

    def spoilt(self, numbers, epoch, out):
        calls.append(numbers)
        if len(calls) > 5 and harm == "loader hangs":
            time.sleep(600)
        if len(calls) > 5:
            raise dl.SampleError(int(numbers[0]), self.name(int(numbers[0])), "spoilt")
        return read(self, numbers, epoch, out)

    ImageReader.read = spoilt


def build(strategy) -> keras.Model:
    """A small model."""
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1), dtype="uint8"),
                keras.layers.Rescaling(1 / 255),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


if __name__ == "__main__":
    main(*sys.argv[1:])
