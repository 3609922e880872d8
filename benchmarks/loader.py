"""From paths to uint8 batches of 224 x 224: ours beside tf.data, Keras's own loaders, and the bare decoder.

    python benchmarks/loader.py [--images 1000] [--rounds 5]

Writes the corpus to a temporary folder (photo-like JPEG, about 455 x 400 pixels, quality 90), reads it in interleaved
rounds, and prints the medians, with ratios to the fastest peer, as a table and as benchmarks/results/loader.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import dist_loader as dl

SIZE = (224, 224)
BATCH = 64


def write_corpus(folder: Path, images: int) -> None:
    """JPEG files with the detail of a photo: smooth shapes, edges and some noise."""
    rng = np.random.default_rng(0)

    def write(number: int, seed: int) -> None:
        local = np.random.default_rng(seed)
        height, width = local.integers(360, 440), local.integers(410, 500)
        coarse = Image.fromarray(local.integers(0, 256, (12, 14, 3), np.uint8)).resize((width, height), Image.BICUBIC)
        pixels = np.asarray(coarse, np.int16) + local.normal(0, 9, (height, width, 3)).astype(np.int16)
        path = folder / f"class-{number % 10}" / f"{number:05d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)

    for number in range(10):
        (folder / f"class-{number}").mkdir(parents=True)
    for number, seed in enumerate(rng.integers(0, 2**32, images)):
        write(number, int(seed))


def ours(folder: Path) -> Iterator[np.ndarray]:
    """ImageSequence, alone."""
    sequence = dl.ImageSequence(dl.Index.from_directory(folder), SIZE, BATCH, host_batch=16 * BATCH)
    for step in range(len(sequence)):
        yield sequence[step][0]
    sequence.close()


def tf_data(folder: Path) -> Iterator[np.ndarray]:
    """tf.data with all that its guide advises."""
    paths = [str(path) for path in sorted(folder.rglob("*.jpg"))]

    def read(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.image.resize(image, SIZE), tf.uint8)

    data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    yield from data.as_numpy_iterator()


def image_dataset(folder: Path) -> Iterator[np.ndarray]:
    """keras.utils.image_dataset_from_directory, which gives float32."""
    data = keras.utils.image_dataset_from_directory(folder, image_size=SIZE, batch_size=BATCH, verbose=False)
    for images, _ in data.prefetch(tf.data.AUTOTUNE):
        yield images.numpy()


class PillowDataset(keras.utils.PyDataset):
    """What the Keras guide shows for images on disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(workers=os.cpu_count() or 1, max_queue_size=16)
        self.paths = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return math.ceil(len(self.paths) / BATCH)

    def __getitem__(self, step: int) -> np.ndarray:
        paths = self.paths[step * BATCH : (step + 1) * BATCH]
        return np.stack([np.asarray(Image.open(path).convert("RGB").resize(SIZE[::-1])) for path in paths])


def py_dataset(folder: Path) -> Iterator[np.ndarray]:
    """Keras PyDataset with Pillow and a thread per core, the way `fit` draws from it."""
    dataset = PillowDataset(folder)
    with ThreadPoolExecutor(dataset.workers) as pool:
        yield from pool.map(dataset.__getitem__, range(len(dataset)))


def pillow_alone(folder: Path) -> Iterator[np.ndarray]:
    """Pillow's decoding and resizing of the same files and nothing else, a thread per core: the decoder's limit."""

    def decode(path: Path) -> int:
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIZE[1], 2 * SIZE[0]))
            image.resize(SIZE[::-1], Image.Resampling.BILINEAR)
        return 1

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(decode, sorted(folder.rglob("*.jpg"))):
            yield np.empty((1, 0))


WAYS: dict[str, Callable[[Path], Iterator[np.ndarray]]] = {
    "dist_loader ImageSequence": ours,
    "tf.data, tuned by hand": tf_data,
    "image_dataset_from_directory": image_dataset,
    "Keras PyDataset, Pillow": py_dataset,
    "(limit: Pillow alone)": pillow_alone,
}


def rate(way: Callable[[Path], Iterator[np.ndarray]], folder: Path) -> float:
    """Images a second over one epoch."""
    started, images = time.perf_counter(), 0
    for batch in way(folder):
        images += len(batch)
    return images / (time.perf_counter() - started)


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_corpus(folder, args.images)
        rates: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(args.rounds + 1):  # the first round warms up, and is not counted
            for name, way in WAYS.items():
                rates[name].append(rate(way, folder))
            print(f"round {number} of {args.rounds}", flush=True)
    medians = {name: statistics.median(values[1:]) for name, values in rates.items()}
    peer = max((name for name in medians if name[0] != "(" and "dist_loader" not in name), key=medians.__getitem__)
    print(f"\n| loader | images/s | beside {peer} |\n|---|---|---|")
    for name, median in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"| {name} | {median:,.0f} | {median / medians[peer]:.2f} |")
    facts = {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.platform(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "pillow": Image.__version__,
        "images": args.images,
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    content = json.dumps({"images_per_second": rates, "medians": medians, "facts": facts}, indent=2)
    (results / "loader.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
