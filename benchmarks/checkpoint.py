"""What checkpoints cost a training: how long it stands still, how long the writing takes beside it.

    python benchmarks/checkpoint.py [--mebibytes 200] [--every 20] [--rounds 4]

A dense model of about so many MiB, optimizer included, is trained with SGD and momentum on one small batch after the
other, in rounds that alternate: without checkpoints, with one every so many steps, with one at every step (in which
each waits for the one before). Prints medians of a step that takes no checkpoint and of one that does, and the time of
all steps together; saves benchmarks/results/checkpoint.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from PIL import Image

import dist_loader as dl

STEPS = 60


class StepTimes(keras.callbacks.Callback):  # type: ignore[misc]
    """Seconds from the begin of each step to the begin of the next one, checkpoints included."""

    def __init__(self) -> None:
        super().__init__()
        self.begins: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.begins.append(time.perf_counter())


def index_of(folder: Path) -> dl.Index:
    """Small images, one batch for each step."""
    (folder / "class").mkdir()
    for number in range(8 * STEPS):
        Image.fromarray(np.full((8, 8), number % 256, np.uint8)).save(folder / f"class/{number:04d}.png")
    return dl.Index.from_directory(folder)


def model_of(mebibytes: int) -> keras.Model:
    """Weights and momentum of about so many MiB together."""
    width = round((mebibytes * 2**20 / 2 / 4 / 3) ** 0.5)
    images = keras.Input((8, 8, 1), dtype="uint8")
    x = keras.layers.Dense(width)(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images)))
    for _ in range(3):
        x = keras.layers.Dense(width, activation="relu")(x)
    model = keras.Model(images, keras.layers.Dense(2, activation="softmax")(x))
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def trained(index: dl.Index, mebibytes: int, every: int | None, folder: Path) -> dict[str, Any]:
    """One epoch; times of its steps."""
    strategy = dl.init("single")
    keras.utils.set_random_seed(0)
    model, times = model_of(mebibytes), StepTimes()
    train = dl.ImageSequence(index, (8, 8), device_batch=8, host_batch=64, color="grayscale", strategy=strategy)
    how: dict[str, Any] = {} if every is None else {"checkpoint_dir": folder, "checkpoint_every": every}
    strategy.fit(model, train, callbacks=[times], verbose=0, **how)
    steps = np.diff(times.begins)[1:]  # the first one compiles
    with_one = np.zeros(len(steps), bool)
    if every is not None:
        with_one[[at for at in range(len(steps)) if (at + 2) % every == 0]] = True
    size = sum(path.stat().st_size for path in folder.glob("*.npz")) / max(1, len(list(folder.glob("*.npz"))))
    return {
        "plain": median(steps[~with_one]) if not with_one.all() else None,
        "with": median(steps[with_one]) if with_one.any() else None,
        "all": float(steps.sum()),
        "mebibytes": size / 2**20,
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=200)
    parser.add_argument("--every", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        index = index_of(Path(scratch))
        for number in range(args.rounds):
            for every in (None, args.every, 1):
                folder = Path(scratch, f"{number}-{every}")
                name = "none" if every is None else f"every {every} steps" if every > 1 else "every step"
                rows.setdefault(name, []).append(trained(index, args.mebibytes, every, folder))
    table = {
        name: {
            "step without, ms": _median(row["plain"] for row in found),
            "step with, ms": _median(row["with"] for row in found),
            "all steps, to none": median(
                row["all"] / none["all"] for row, none in zip(found, rows["none"], strict=True)
            ),
            "MiB": found[-1]["mebibytes"],
        }
        for name, found in rows.items()
    }
    for name, figures in table.items():
        print(f"{name:16}", "  ".join(f"{what} {'-' if it is None else f'{it:.2f}'}" for what, it in figures.items()))
    facts = {"machine": platform.platform(), "cores": os.cpu_count(), "steps": STEPS, "rounds": args.rounds}
    Path("benchmarks/results/checkpoint.json").write_text(json.dumps({**facts, "figures": table}, indent=2) + "\n")


def _median(seconds: Any) -> float | None:
    there = [value for value in seconds if value is not None]
    return 1e3 * median(there) if there else None


if __name__ == "__main__":
    main()
