"""The cache of decoded images: how fast it is, beside decoding and beside copying memory, and why it is as it is.

    python benchmarks/cache.py [--rounds 9] [--images 1024]

JPEG files of about 455 x 400 pixels become uint8 samples of 224 x 224 x 3. Each way reads all of them in random order,
with one thread per core, 16 images at a time, into the memory of 256 images; then the next way does, round after round,
after one that is not counted. A ratio is the median of the ratios within each round. All files are in the page cache.
The last ways go through `ImageSequence`; as many images as it holds are drawn before the clock starts.

Prints the medians and writes them to benchmarks/results/cache.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

import dist_loader as dl
from benchmarks.loader import corpus, facts
from dist_loader.cache.layout import HEADER, MARGIN
from dist_loader.readers.cached import CachedReader
from dist_loader.readers.image import ImageReader

RESULT = Path(__file__).parent / "results" / "cache.json"
SIZE = (corpus.SIZE, corpus.SIZE)
PART, HELD = 16, 256  # images
CORES = len(os.sched_getaffinity(0))
ReadPart = Callable[[npt.NDArray[np.int64], npt.NDArray[np.uint8]], object]

UNCACHED_READER = "no cache, reader"
LATER_READER = "later epochs, reader"
LATER = "later epochs, ImageSequence"
UNCACHED = "no cache, ImageSequence"
LIMIT = "limit: np.copyto from the page cache"


class Pace(NamedTuple):
    """How fast, and how much work: the processor time hardly changes when other programs run."""

    rate: float  # images a second
    cost: float  # microseconds of processor time of this process for an image


class Clock:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self.began, self.used = time.perf_counter(), time.process_time()

    def pace(self, images: int) -> Pace:
        seconds, used = time.perf_counter() - self.began, time.process_time() - self.used
        return Pace(images / seconds, 1e6 * used / images)


class Bench:
    """The ways, and what they read."""

    def __init__(self, index: dl.Index, scratch: Path) -> None:
        self.index, self.scratch = index, scratch
        self.plain = ImageReader(index, SIZE)
        self.shape = self.plain.shape
        self.frames = np.ones((CORES, HELD // CORES, *self.shape), np.uint8)
        self.rng = np.random.default_rng(0)
        self.fresh = 0
        self.kept = CachedReader(self.plain, scratch / "kept")
        self.all(lambda some, out: self.kept.read(some, 0, out))
        contents = self.kept.cache.contents
        self.mapped = np.memmap(self.kept.cache.path, np.uint8, "r", HEADER, (len(index), contents.slot))
        self.pixels = slice(MARGIN, MARGIN + contents.sample_bytes)
        self.memory = np.array(self.mapped[:, self.pixels])
        self.sequences = {
            cache: dl.ImageSequence(index, SIZE, 64, HELD, seed=1, cache=cache, world=dl.World(0, 1, 0, 1))
            for cache in (None, scratch / "kept")
        }
        for sequence in self.sequences.values():
            sequence.read_ahead_to(1 << 40)

    def all(self, read: ReadPart, times: int = 1) -> Pace:
        """The pace over all images, in random order, on all cores."""
        order = np.concatenate([self.rng.permutation(len(self.index)) for _ in range(times)])
        parts = [order[at : at + PART] for at in range(0, len(order), PART)]

        def work(thread: int) -> None:
            for number, part in enumerate(parts[thread::CORES]):
                at = number * PART % (len(self.frames[thread]) - PART + 1) // PART * PART
                read(part, self.frames[thread, at : at + len(part)])

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(CORES)]
        clock = Clock()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return clock.pace(len(order))

    def through(self, cache: Path | None, times: int) -> Pace:
        """The pace through a sequence that is neither at its beginning nor at its end."""
        sequence = self.sequences[cache]
        clock, drawn, wanted = Clock(), -HELD, times * len(self.index)
        for step in self.steps(sequence):
            if drawn == 0:
                clock = Clock()
            if drawn >= wanted:
                break
            drawn += len(sequence[step][0])
        pace = clock.pace(drawn)
        used = 0.0
        while time.process_time() - used > 0.002:  # until it has read ahead all that it holds, or the next way pays
            used = time.process_time()
            time.sleep(0.05)
        return pace

    @staticmethod
    def steps(sequence: dl.ImageSequence) -> Any:
        while True:
            yield from range(len(sequence))
            sequence.epoch += 1

    def cached(self, reader: CachedReader) -> ReadPart:
        return lambda some, out: reader.read(some, 0, out)

    def writing(self) -> Pace:
        """The first epoch: decodes and keeps."""
        folder = self.scratch / f"fresh-{self.fresh}"
        self.fresh += 1
        pace = self.all(self.cached(CachedReader(self.plain, folder)))
        shutil.rmtree(folder)
        return pace

    def copied(self, source: npt.NDArray[np.uint8]) -> ReadPart:
        def read(some: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
            for number, place in zip(some.tolist(), out, strict=True):
                np.copyto(place.reshape(-1), source[number])

        return read

    def newly_mapped(self) -> Pace:
        """As a new process would: no page is in its table yet."""
        mapped = np.memmap(self.kept.cache.path, np.uint8, "r", HEADER, self.mapped.shape)
        return self.all(self.copied(mapped[:, self.pixels]))

    def always_checked(self, some: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        cache = self.kept.cache
        for number in some.tolist():  # forget that these are known
            cache._known[number >> 3] = 0  # noqa: SLF001
        self.kept.read(some, 0, out)

    def without_stat(self, some: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
        """No look at the source, no word, no checksum: only the copying of `preadv`."""
        cache = self.kept.cache
        for number, place in zip(some.tolist(), out, strict=True):
            os.preadv(cache._fd, [place], HEADER + number * cache.contents.slot + MARGIN)  # noqa: SLF001

    def ways(self) -> dict[str, Callable[[], Pace]]:
        kept = self.scratch / "kept"
        return {
            UNCACHED_READER: lambda: self.all(lambda some, out: self.plain.read(some, 0, out)),
            "first epoch, decodes and writes": self.writing,
            "second epoch of another process: checks": lambda: self.all(self.cached(CachedReader(self.plain, kept))),
            LATER_READER: lambda: self.all(self.cached(self.kept), 4),
            "the same, file and checksum looked at always": lambda: self.all(self.always_checked, 2),
            "the same, bare preadv": lambda: self.all(self.without_stat, 4),
            "memory map, first epoch of a process": self.newly_mapped,
            LIMIT: lambda: self.all(self.copied(self.mapped[:, self.pixels]), 4),
            "np.copyto from the process's memory": lambda: self.all(self.copied(self.memory), 4),
            UNCACHED: lambda: self.through(None, 1),
            LATER: lambda: self.through(kept, 4),
        }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--images", type=int, default=1024)
    arguments.add_argument("--corpus", type=Path, default=corpus.cache_folder())
    args = arguments.parse_args()
    files = corpus.make(corpus.KINDS["small"], args.images, args.corpus, CORES)
    with tempfile.TemporaryDirectory(dir=args.corpus) as scratch:
        bench = Bench(dl.Index.from_directory(files.images), Path(scratch))
        paces: dict[str, list[Pace]] = {name: [] for name in bench.ways()}
        for number in range(args.rounds + 1):
            for name, way in bench.ways().items():
                pace = way()
                if number:
                    paces[name].append(pace)
        for sequence in bench.sequences.values():
            sequence.close()

    def ratio(one: str, to: str) -> float:
        return round(statistics.median(a.rate / b.rate for a, b in zip(paces[one], paces[to], strict=True)), 2)

    medians = {name: round(statistics.median(pace.rate for pace in some)) for name, some in paces.items()}
    costs = {name: round(min(pace.cost for pace in some), 1) for name, some in paces.items()}
    ratios = {
        "ratio_to_no_cache": ratio(LATER, UNCACHED),
        "ratio_to_memory_copy": ratio(LATER, LIMIT),
        "ratio_to_no_cache_reader": ratio(LATER_READER, UNCACHED_READER),
        "ratio_to_memory_copy_reader": ratio(LATER_READER, LIMIT),
        "ratio_of_first_epoch_to_no_cache": ratio("first epoch, decodes and writes", UNCACHED_READER),
        "cpu_ratio_to_no_cache": round(costs[UNCACHED] / costs[LATER], 2),
        "cpu_ratio_to_memory_copy": round(costs[LIMIT] / costs[LATER], 2),
        "cpu_ratio_to_memory_copy_reader": round(costs[LIMIT] / costs[LATER_READER], 2),
    }
    for name, rate in medians.items():
        print(f"{name:42} {rate:8,} images/s {costs[name]:8.1f} us of processor time for an image")
    print(*(f"{name}={value}" for name, value in ratios.items()), sep="\n")
    fastest = {name: round(max(pace.rate for pace in some)) for name, some in paces.items()}
    result = {"images_per_second": medians, "fastest_round": fastest, "least_cpu_us_an_image": costs, **ratios}
    result["rounds"] = args.rounds
    machine = facts.machine(sorted(os.sched_getaffinity(0))) | {"command": " ".join(["python", *sys.argv])}
    RESULT.write_text(json.dumps({**result, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
