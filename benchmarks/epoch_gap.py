"""How long a training waits between two epochs: at 10 million samples, with validation and without.

    python benchmarks/epoch_gap.py [--samples 10000000] [--rounds 9]

The index has that many entries, all of them one of 64 small files. Each round begins some steps before the end of an
epoch and ends some steps after the beginning of the next one, through Keras's `fit` with a model that computes nothing,
and a callback that waits as long as a step on a device would take. The gap is from the end of an epoch's last step, or
of the validation after it, to when the next epoch's first batch is in Keras's hands. Validation is told apart, as is
the way to it: each round's `fit` validates once, and makes a dataset for that, which a longer one does once, too. Few
samples beside many say what Keras takes by itself, and the main thread's processor time what would be left on a machine
that does nothing else.

Prints the figures and writes them to benchmarks/results/epoch_gap.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import dist_loader as dl
from benchmarks.loader import facts

RESULT = Path(__file__).parent / "results" / "epoch_gap.json"
BATCH, HELD, SIZE = 64, 2048, (32, 32)
STEP = 0.02  # seconds that a step takes
STEPS = 60  # of an epoch, at its end and at its beginning
FILES = 64
VALIDATION = 2048  # samples


def index(folder: Path, samples: int) -> dl.Index:
    """An index of so many entries, of few files."""
    names = [f"class/{number:02}.jpg" for number in range(FILES)]
    (folder / "class").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((*SIZE, 3), number, np.uint8)).save(folder / name)
    length = len(names[0])
    buffer = np.tile(np.frombuffer("".join(names).encode(), np.uint8), -(-samples // FILES))[: samples * length]
    offsets = np.arange(samples + 1, dtype=np.int64) * length
    return dl.Index(str(folder), ("class",), np.zeros(samples, np.int32), buffer, offsets)


class Nothing(keras.Model):  # type: ignore[misc]
    """Counts images."""

    def __init__(self) -> None:
        super().__init__()
        self.images = tf.Variable(0, dtype=tf.int64)

    def train_step(self, data: Any) -> dict[str, Any]:
        self.images.assign_add(tf.shape(data[0], tf.int64)[0])
        return {"images": self.images + 0}

    def test_step(self, data: Any) -> dict[str, Any]:
        return {"images": tf.shape(data[0])[0]}


class Gap(keras.callbacks.Callback):  # type: ignore[misc]
    """Notes what lies between an epoch's last step and the next epoch's first batch; stops in that epoch."""

    def __init__(self, train: dl.ImageSequence) -> None:
        super().__init__()
        self._train = train
        self._epochs = 0
        self.last_step = self.test_began = self.test_ended = 0.0
        self.gap = self.work = 0.0
        self.steps: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epochs += 1

    def on_test_begin(self, logs: Any = None) -> None:
        if self._epochs == 1:
            self.test_began = time.monotonic()

    def on_test_end(self, logs: Any = None) -> None:
        if self._epochs == 1:
            self.test_ended, self.work = time.monotonic(), time.thread_time()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = time.monotonic()
        if self._epochs == 2 and not self.gap:
            self.gap = self._train.delivered_at(0) - max(self.last_step, self.test_ended)
            self.work = time.thread_time() - self.work
        elif self._epochs == 1:
            self.steps.append(now - self.last_step)
            self.last_step, self.work = now + STEP, time.thread_time()
        if self._epochs == 2 and batch + 1 >= STEPS:
            self.model.stop_training = True
        time.sleep(STEP)  # as a device would compute, so that reading can be ahead


def gaps(samples: int, validated: bool, folder: Path, rounds: int) -> dict[str, Any]:
    """Medians over the rounds, in milliseconds."""
    alone = dl.World(0, 1, 0, 1)
    train = dl.ImageSequence(index(folder, samples), SIZE, BATCH, HELD, world=alone)
    valid = dl.ImageSequence(index(folder, VALIDATION), SIZE, BATCH, world=alone, shuffle=False) if validated else None
    model = Nothing()
    model.compile()
    seen = []
    for epoch in range(0, 2 * rounds + 2, 2):
        gap = Gap(train)
        train.start_at(epoch, len(train) - STEPS)
        train.read_ahead_to(epoch + 2)
        model.fit(train, validation_data=valid, initial_epoch=epoch, epochs=epoch + 2, callbacks=[gap], verbose=0)
        seen.append(gap)
    for sequence in filter(None, (train, valid)):
        sequence.close()
    counted = seen[1:]  # without the round in which TensorFlow compiles

    def median(values: list[float]) -> float:
        return round(1000 * statistics.median(values), 2)

    outcome = {
        "samples": samples,
        "gap_ms": median([one.gap for one in counted]),
        "longest_gap_ms": round(1000 * max(one.gap for one in counted), 2),
        "main_thread_ms": median([one.work for one in counted]),
        "step_ms": median([step for one in counted for step in one.steps[1:]]),
    }
    if validated:
        outcome["to_validation_ms"] = median([one.test_began - one.last_step for one in counted])
        outcome["validation_ms"] = median([one.test_ended - one.test_began for one in counted])
    return outcome


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--results", type=Path, default=RESULT, metavar="FILE")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # Keras expects an epoch to begin at its first step
    outcome: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for samples in (2 * STEPS * BATCH, args.samples):
            for validated in (False, True):
                name = f"{samples:,} samples, {'with' if validated else 'without'} validation"
                outcome[name] = gaps(samples, validated, Path(folder), args.rounds)
                print(f"{name}: {outcome[name]}", flush=True)
    machine = facts.machine(sorted(os.sched_getaffinity(0))) | {"command": " ".join(["python", *sys.argv])}
    args.results.write_text(json.dumps({"gaps": outcome, "rounds": args.rounds, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
