#!/usr/bin/env python3
"""Reading and training by turns, as the articles do, beside the overlapped host batch: time and memory.

    python -m benchmarks.alternating [--rounds 3]

The host batch is 512 images of 224 x 224, of 2,048 photo-like JPEG files; each is trained on three times in device
batches of 32, by a small network on one thread, which stands for a device. Ways: the articles' (Pillow, float32, one
host batch after the other), the same with our reader, and ours. Each way is a process of its own, and they take turns.
Writes benchmarks/results/alternating.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from benchmarks.loader import corpus, facts

RESULT = Path(__file__).parent / "results" / "alternating.json"
SIZE, FILES, HELD, BATCH, PASSES = 224, 2048, 512, 32, 3
WAYS = {
    "articles": "read with Pillow to float32, then train, by turns",
    "by turns": "read with dist_loader to uint8, then train, by turns",
    "ours": "host_batch and host_passes: read while training",
}


def child(way: str, folder: str) -> None:
    """Train in one way; print seconds and peak memory beyond what TensorFlow and the model take."""
    import keras
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    import dist_loader as dl

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    strategy = dl.init("single")
    index = dl.Index.from_directory(folder)
    keras.utils.set_random_seed(1)
    scale = [] if way == "articles" else [keras.layers.Rescaling(1 / 127.5, offset=-1)]
    layers = [keras.layers.Conv2D(16, 3, 2, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), *scale, *layers, keras.layers.Dense(10, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.train_on_batch(np.zeros((BATCH, SIZE, SIZE, 3), np.float32), np.zeros(BATCH))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    order = np.random.default_rng(0).permutation(len(index))

    def original(numbers: Any) -> Any:
        def pixels(number: int) -> Any:
            with Image.open(index.path(number)) as image:
                return np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32) / 127.5 - 1

        return np.stack([pixels(int(number)) for number in numbers])

    def read(numbers: Any) -> Any:
        part = dl.ImageSequence(index.take(numbers), (SIZE, SIZE), len(numbers), shuffle=False, strategy=strategy)
        found = part[0][0].copy()
        part.close()
        return found

    started = time.perf_counter()
    if way == "ours":
        train = dl.ImageSequence(index, (SIZE, SIZE), BATCH, 2 * HELD, host_passes=PASSES, strategy=strategy)
        strategy.fit(model, train, epochs=1, verbose=0)
    else:
        for at in range(0, len(order), HELD):
            numbers = order[at : at + HELD]
            x = (original if way == "articles" else read)(numbers)
            model.fit(x, index.labels[numbers], batch_size=BATCH, epochs=PASSES, verbose=0)
            del x
    seconds = time.perf_counter() - started
    beyond = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "mib_beyond": beyond / 1024}), flush=True)


def main() -> None:
    """Measure in interleaved rounds, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(*args.child)
        return
    images = corpus.make(corpus.KINDS["small"], FILES, corpus.cache_folder(), os.cpu_count() or 1).images
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way, rows in found.items():
            command = [sys.executable, "-m", "benchmarks.alternating", "--child", way, str(images)]
            root = Path(__file__).parents[1]
            env = {**os.environ, "PYTHONPATH": str(root)}
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900, cwd=root, env=env)
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
            print(f"{way}: {rows[-1]['seconds']:.1f} s, {rows[-1]['mib_beyond']:.0f} MiB", flush=True)
    medians = {way: {key: _median(rows, key) for key in rows[0]} for way, rows in found.items()}
    for way, median in medians.items():
        print(f"{WAYS[way]}: {median['seconds']} s, {median['mib_beyond']} MiB beyond the model's own")
    settings = {"files": FILES, "host_batch": HELD, "device_batch": BATCH, "passes": PASSES, "size": SIZE}
    machine = facts.machine(sorted(os.sched_getaffinity(0))) | {"command": "python -m benchmarks.alternating"}
    result = {"medians": medians, "rounds": found, **settings, "machine": machine}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def _median(rows: list[dict[str, float]], key: str) -> float:
    return round(statistics.median(row[key] for row in rows), 1)


if __name__ == "__main__":
    main()
