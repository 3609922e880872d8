"""How much memory a rank takes over 50 epochs: the host batch, and how much more.

    python benchmarks/memory.py [--epochs 50] [--steps 60]

Every row is a process of its own. First it does what needs TensorFlow and Keras without any of ours (for a drawn
sequence: imports and a tensor; for `fit`: a training on one batch in memory): that is "before". Then it draws an
ImageSequence, or trains on it, for 50 epochs of at most 60 steps, while a thread watches its resident memory (VmRSS:
all of it, mapped pages of libraries and of the index included). "beyond" is the peak, less "before" and the host batch.
The images are 256 small files; an index of more samples names them again and again. Prints a table, and saves
benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
from PIL import Image

FILES = 256
SIZE = (96, 96)
BATCH = 64
CASES = [
    # how, samples, host_batch
    ("drawn", 1_000, "16MiB"),
    ("drawn", 16_000, "16MiB"),
    ("drawn", 1_000_000, "16MiB"),
    ("drawn", 10_000_000, "16MiB"),
    ("drawn", 10_000_000, "64MiB"),
    ("drawn", 10_000_000, "256MiB"),
    ("fit", 1_000, "16MiB"),
    ("fit", 3_840, "16MiB"),
    ("fit", 3_840, "64MiB"),
    ("fit", 3_840, "256MiB"),
]


def write_images(folder: Path) -> None:
    """Small JPEG files."""
    rng = np.random.default_rng(0)
    (folder / "class").mkdir()
    for number in range(FILES):
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC).save(folder / f"class/{number:03d}.jpg")


def write_index(folder: Path, samples: int) -> Path:
    """An index of so many samples, in a file."""
    import dist_loader as dl

    path = folder / f"{samples}.index"
    if not path.exists():
        names = b"".join(f"class/{number:03d}.jpg".encode() for number in range(FILES))
        each = len(names) // FILES
        buffer = np.resize(np.frombuffer(names, np.uint8), samples * each)
        offsets = np.arange(samples + 1, dtype=np.int64) * each
        dl.Index(str(folder), ("class",), np.zeros(samples, np.int32), buffer, offsets).save(path)
    return path


class Memory(threading.Thread):
    """Watches the memory of this process.

    Args:
        kind: "VmRSS", all that is resident, or "RssAnon", what this process has for itself.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(daemon=True)
        self.kind = kind
        self.peak = 0.0
        self.start()

    def run(self) -> None:
        pause = threading.Event()
        while not pause.wait(0.01):
            self.now()

    def now(self) -> float:
        """It in MiB, at this moment."""
        mib = int(Path("/proc/self/status").read_text().split(f"{self.kind}:")[1].split()[0]) / 1024
        self.peak = max(self.peak, mib)
        return mib


def run(how: str, index_file: str, host_batch: str, epochs: int, steps: int) -> dict[str, Any]:
    """One case, in this process."""
    import keras
    import tensorflow as tf

    import dist_loader as dl
    from dist_loader.sizes import parse_bytes

    index = dl.Index.open(index_file)
    memory = Memory("VmRSS")
    sequence = dl.ImageSequence(index, SIZE, BATCH, host_batch, threads=2)
    steps = min(steps, len(sequence))
    after = []
    if how == "drawn":
        tf.zeros(1).numpy()
        before = memory.now()
        for epoch in range(epochs):
            sequence.epoch = epoch
            for step in range(steps):
                sequence[step]
            after.append(memory.now())
    else:
        model = keras.Sequential(
            [keras.Input((*SIZE, 3), dtype="uint8"), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
        )
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        batch = np.zeros((BATCH, *SIZE, 3), np.uint8), np.zeros(BATCH, np.int32)
        data = tf.data.Dataset.from_tensors(batch).repeat(20).prefetch(2)
        model.fit(data, epochs=3, verbose=0)
        before = memory.peak
        memory.peak = 0.0
        watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: after.append(memory.now()))
        model.fit(sequence, epochs=epochs, verbose=0, callbacks=[watch])
    sequence.close()
    allowed = parse_bytes(host_batch) / 2**20
    return {
        "before_mib": before,
        "peak_mib": memory.peak,
        "host_batch_mib": allowed,
        "beyond_mib": memory.peak - before - allowed,
        "after_epoch_5_mib": after[4],
        "after_last_epoch_mib": after[-1],
        "epochs": len(after),
        "steps": steps,
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--save", type=Path, default=Path(__file__).parent / "results" / "memory.json")
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run(args.case[0], args.case[1], args.case[2], args.epochs, args.steps)))
        return
    rows = []
    print(
        "| how | samples | host batch | before | peak | beyond | after epoch 5 | after the last |\n" + "|---" * 8 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        for how, samples, host_batch in CASES:
            case = ["--case", how, str(write_index(Path(folder), samples)), host_batch]
            options = ["--epochs", str(args.epochs), "--steps", str(args.steps)]
            command = [sys.executable, __file__, *case, *options]
            said = json.loads(
                subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
                ).stdout.splitlines()[-1]
            )
            rows.append({"how": how, "samples": samples, "host_batch": host_batch, **said})
            shown = [said[f"{name}_mib"] for name in ("before", "peak", "beyond", "after_epoch_5", "after_last_epoch")]
            figures = " | ".join(f"{mib:,.0f} MiB" for mib in shown)
            print(f"| {how} | {samples:,} | {host_batch} | {figures} |", flush=True)
    facts = {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version(), "batch": BATCH, "size": SIZE}
    args.save.write_text(json.dumps({"facts": facts, "rows": rows}, indent=2) + "\n")
    print(f"largest beyond: {max(row['beyond_mib'] for row in rows):,.0f} MiB; saved {args.save}")


if __name__ == "__main__":
    main()
