"""A program that stops in the middle of an epoch ends, with its own exit code.

A thread of TensorFlow that is in the middle of drawing a batch, in Python, when the interpreter ends, never comes back,
and TensorFlow then waits for it for ever (seen in two of three runs before the sequence saw to it).
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.distributed.launching import run

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

PROGRAM = """
import sys
import keras
import dist_loader as dl

class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyError("stop")

def fit():
    model = keras.Sequential([keras.Input((8, 8, 1), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images, epochs=3, verbose=0, callbacks=[Stop()])

def draw():
    batches = iter(images.get_tf_dataset())
    next(batches)
    globals().update(batches=batches)

images = dl.ImageSequence(dl.Index.from_directory(sys.argv[1]), (8, 8), 4, host_batch=4, color="grayscale")
{"fit": fit, "draw": draw}[sys.argv[2]]()
"""


@pytest.mark.parametrize(("how", "code"), [("fit", 1), ("draw", 0)])
def test_a_program_that_stops_in_the_middle_of_an_epoch_ends(images: Path, how: str, code: int) -> None:
    for _ in range(3):
        assert run([sys.executable, "-c", PROGRAM, str(images), how], timeout=60).returncode == code
