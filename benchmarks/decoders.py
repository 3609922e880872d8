"""Which decoder and which resizing: images a second on all cores, beside the difference to Pillow's antialiased pixels.

    python benchmarks/decoders.py [--rounds 15]

JPEG files in memory become 224 x 224 x 3 uint8, a thread per core writing straight into a batch, in interleaved rounds
after one that is not counted; the ratios are medians of those within a round. The last rows read the files from disk as
a training does, and do the same work in processes that share nothing (the limit). Prints the medians and writes them to
benchmarks/results/decoders.json.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image

from dist_loader.index import Index
from dist_loader.readers.image import ImageReader
from dist_loader.readers.jpeg import read_jpeg
from dist_loader.readers.scratch import Scratch

SIDE = 224
SCRATCH = Scratch()
CORES = len(os.sched_getaffinity(0))
Pixels = npt.NDArray[np.uint8]
Way = Callable[[bytes, Pixels], object]


def photo(height: int, width: int, seed: int) -> Image.Image:
    """Something with the detail of a photo: smooth shapes, edges and some noise."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    edges = np.add.outer(np.arange(height) // 90, np.arange(width) // 70)[..., None] % 2 * 40
    pixels = 0.8 * np.asarray(soft) + edges + rng.normal(0, 7, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


CORPORA: dict[str, Callable[[int], Image.Image]] = {
    "about 455 x 400": lambda n: photo(360 + 8 * (n % 11), 410 + 9 * (n % 10), n),
    "1600 x 1067": lambda n: photo(1067, 1600, n),
}
FILES = {"about 455 x 400": 100, "1600 x 1067": 16}


def _array(decoded: Any) -> Pixels:
    return np.asarray(decoded, np.uint8)


def reduced(data: bytes, **options: object) -> Pixels:
    """Decoded by simplejpeg at 1/8, 1/4 or 1/2 where that covers the target."""
    height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    by = next((by for by in (8, 4, 2) if min(height, width) >= SIDE * by), 1)
    return _array(simplejpeg.decode_jpeg(data, min_height=-(-height // by), min_width=-(-width // by), **options))


def at_any_scale(data: bytes) -> Pixels:
    """Decoded by simplejpeg at the smallest of its scales that covers the target, 3/8 and 5/8 among them."""
    return _array(simplejpeg.decode_jpeg(data, min_height=SIDE, min_width=SIDE))


def opencv_resize(pixels: Pixels, out: Pixels, interpolation: int = cv2.INTER_LINEAR) -> None:
    cv2.resize(pixels, (SIDE, SIDE), dst=out, interpolation=interpolation)


def pillow_resize(pixels: Pixels, out: Pixels, gap: float | None = None) -> None:
    image = Image.frombuffer("RGB", pixels.shape[1::-1], pixels, "raw", "RGB", 0, 1)
    out[...] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=gap))


def pillow(data: bytes, out: Pixels, reduce: bool = True) -> None:
    with Image.open(io.BytesIO(data)) as image:
        if reduce:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
        out[...] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def opencv(data: bytes, out: Pixels) -> None:
    opencv_resize(_array(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)), out)


def ours(data: bytes, out: Pixels) -> None:
    assert read_jpeg(data, lambda height, width: (0, 0, height, width), "bilinear", out, SCRATCH)


def smoothed(data: bytes, out: Pixels, **options: object) -> None:
    opencv_resize(_array(cv2.GaussianBlur(reduced(data, **options), (3, 3), 0)), out)


OURS = "dist_loader: simplejpeg, damped + INTER_LINEAR"
WAYS: dict[str, Way] = {
    "Pillow, whole": lambda data, out: pillow(data, out, reduce=False),
    "Pillow, draft to twice the target": pillow,
    "OpenCV + INTER_LINEAR": opencv,
    "simplejpeg, no resizing": lambda data, out: reduced(data),
    "simplejpeg + INTER_LINEAR": lambda data, out: opencv_resize(reduced(data), out),
    "simplejpeg + INTER_LINEAR_EXACT": lambda data, out: opencv_resize(reduced(data), out, cv2.INTER_LINEAR_EXACT),
    "simplejpeg + INTER_AREA": lambda data, out: opencv_resize(reduced(data), out, cv2.INTER_AREA),
    "simplejpeg + Pillow": lambda data, out: pillow_resize(reduced(data), out),
    "simplejpeg + Pillow, reducing_gap=2": lambda data, out: pillow_resize(reduced(data), out, 2.0),
    "simplejpeg, any scale + INTER_LINEAR": lambda data, out: opencv_resize(at_any_scale(data), out),
    "simplejpeg + 3 x 3 binomial + INTER_LINEAR": smoothed,
    "the same, fastupsample": lambda data, out: smoothed(data, out, fastupsample=True),
    "the same, fastdct": lambda data, out: smoothed(data, out, fastdct=True),
    OURS: ours,
}


class Clock:
    """Images a second, and milliseconds of processor time an image."""

    def __init__(self) -> None:
        self.started, self.used = time.perf_counter(), time.process_time()

    def read(self, images: int) -> tuple[float, float]:
        seconds, used = time.perf_counter() - self.started, time.process_time() - self.used
        return images / seconds, 1000 * used / images


def in_threads(way: Way, files: list[bytes], threads: int = CORES) -> tuple[float, float]:
    batch = np.empty((64, SIDE, SIDE, 3), np.uint8)

    def work(first: int) -> None:
        for number in range(first, len(files), threads):
            way(files[number], batch[number % 64])

    clock = Clock()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    return clock.read(len(files))


def _process(files: list[bytes], barrier: Any, results: Any) -> None:
    out = np.empty((SIDE, SIDE, 3), np.uint8)
    barrier.wait()
    clock = Clock()
    for data in files:
        ours(data, out)
    results.put(clock.read(len(files)))


def in_processes(files: list[bytes]) -> tuple[float, float]:
    """As many processes as there are cores, each with its part of the files."""
    context = multiprocessing.get_context("spawn")  # a fork may take along a lock of a thread that is just ending
    barrier, results = context.Barrier(CORES), context.Queue()
    processes = [context.Process(target=_process, args=(files[n::CORES], barrier, results)) for n in range(CORES)]
    for process in processes:
        process.start()
    read = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return sum(rate for rate, _ in read), statistics.mean(used for _, used in read)


def from_disk(index: Index, **options: Any) -> tuple[float, float]:
    """Through the reader, parts of 16 samples at a time."""
    reader = ImageReader(index, (SIDE, SIDE), **options)
    parts = [np.arange(at, min(at + 16, len(index))) for at in range(0, len(index), 16)]
    batches = [np.ones((len(part), *reader.shape), np.uint8) for part in parts]  # written once: the memory is there
    clock = Clock()
    with ThreadPoolExecutor(CORES) as pool:
        list(pool.map(lambda part, out: reader.read(part, 0, out), parts, batches))
    return clock.read(len(index))


def difference(way: Way, files: list[bytes]) -> tuple[float, int]:
    """Mean and largest difference to Pillow's whole decoding and antialiased bilinear resizing."""
    differences = []
    for data in files:
        out, wanted = np.zeros((2, SIDE, SIDE, 3), np.uint8)
        way(data, out)
        pillow(data, wanted, reduce=False)
        differences.append(np.abs(out.astype(int) - wanted))
    return float(np.mean(differences)), int(np.max(differences))


def measure(corpus: str, rounds: int) -> dict[str, dict[str, object]]:
    images = [CORPORA[corpus](number) for number in range(FILES[corpus])]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "class"
        folder.mkdir()
        for number, image in enumerate(images):
            image.save(folder / f"{number:04}.jpg", quality=90)
        index = Index.from_directory(scratch)
        files = [path.read_bytes() for path in sorted(folder.iterdir())]
        runs: dict[str, Callable[[], tuple[float, float]]] = {
            name: partial(in_threads, way, files) for name, way in WAYS.items()
        }
        runs["(one thread) " + OURS] = lambda: in_threads(ours, files, 1)
        runs["(from disk) ImageReader"] = lambda: from_disk(index)
        runs["(from disk) ImageReader, area"] = lambda: from_disk(index, resize="area")
        runs["(from disk) ImageReader, random-resized"] = lambda: from_disk(index, crop="random-resized")
        runs["(limit) the same in processes, from memory"] = lambda: in_processes(files)
        rates: dict[str, list[float]] = {name: [] for name in runs}
        used: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(rounds + 1):
            for name, run in runs.items():
                rate, milliseconds = run()
                rates[name].append(rate)
                used[name].append(milliseconds)
            print(f"{corpus}: round {number} of {rounds}", flush=True)
    table: dict[str, dict[str, object]] = {}
    for name, values in rates.items():
        ratios = [value / of_ours for value, of_ours in zip(values[1:], rates[OURS][1:], strict=True)]
        table[name] = {"images_per_second": round(statistics.median(values[1:]), 1)}
        table[name]["beside_ours"] = round(statistics.median(ratios), 3)  # within rounds: the machine may not be calm
        table[name]["least_cpu_ms"] = round(min(used[name]), 3)
        if name in WAYS and "no resizing" not in name:
            mean, most = difference(WAYS[name], files[:10])
            table[name] |= {"mean_difference": round(mean, 2), "max_difference": most}
    return table


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    tables = {corpus: measure(corpus, args.rounds) for corpus in CORPORA}
    for corpus, table in tables.items():
        print(f"\n| JPEG of {corpus} | images/s | beside ours | CPU ms, least | mean difference | max |")
        print("|---|---|---|---|---|---|")
        for name, row in table.items():
            values = [f"{row['images_per_second']:,.0f}", f"{row['beside_ours']:.2f}", f"{row['least_cpu_ms']:.2f}"]
            values += [str(row.get(key, "")) for key in ("mean_difference", "max_difference")]
            print(f"| {name} | {' | '.join(values)} |")
    facts = {
        "cores": CORES,
        "machine": platform.platform(),
        "python": platform.python_version(),
        "simplejpeg": simplejpeg.__version__,
        "opencv": cv2.__version__,
        "pillow": version("pillow"),
        "rounds": args.rounds,
    }
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    content = json.dumps({"jpeg": tables, "facts": facts}, indent=2)
    (results / "decoders.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
