"""How fast an index is made, opened and asked, and how much memory it takes of each rank.

    python benchmarks/index.py [--samples 100000000] [--folders 1000] [--files 1000] [--scratch DIR]

First an index of many paths that exist nowhere: how long it takes to open, how much memory several processes have of
their own and in common, how long the first batch plan of an epoch takes, and how many paths can be asked for. Then a
folder of real, empty files: how long an index takes with 1 to 16 threads, as it is and with an answer of every folder
delayed by 2 ms as over a network; and how long its cache takes to open. Everything is written to a temporary folder and
removed afterwards. Prints a table, and saves benchmarks/results/index.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self
from unittest import mock

import numpy as np

from dist_loader import Index
from dist_loader.index import file as index_file

BLOCK = 1 << 20
CLASSES = 1000
DELAY = 0.002  # seconds that a network file system takes to answer for one folder

# A rank: opens the index, plans batches of random epochs, asks for paths, then tells what memory it has.
RANK = """
import json, sys, time
import numpy as np
def memory():
    lines = open("/proc/self/smaps_rollup").read().splitlines()[1:]
    mib = {line.split()[0][:-1]: int(line.split()[1]) / 1024 for line in lines}
    private = mib["Private_Clean"] + mib["Private_Dirty"]
    return {"own": mib["Anonymous"], "private": private, "pss": mib["Pss"], "rss": mib["Rss"]}
import dist_loader as dl
dl.Index, dl.Plan
before = memory()
started = time.perf_counter(); index = dl.Index.open(sys.argv[1]); index.fingerprint
opened = time.perf_counter() - started
plan = dl.Plan(len(index), 8, 256)
plans, computed = [], []
for epoch in np.random.default_rng(int(sys.argv[2])).integers(0, 1000, 50):
    started = time.perf_counter(); began = time.thread_time(); plan.batch(int(epoch), 0, 0)
    plans.append(time.perf_counter() - started); computed.append(time.thread_time() - began)
numbers = np.random.default_rng(int(sys.argv[2])).integers(0, len(index), 200_000).tolist()
started = time.perf_counter()
for number in numbers: index.path(number)
paths = len(numbers) / (time.perf_counter() - started)
print(json.dumps({"open_s": opened, "plan_s": plans, "plan_cpu_s": computed, "paths_per_s": paths}), flush=True)
sys.stdin.readline()  # until all ranks are here
print(json.dumps({"before": before, "after": memory()}), flush=True)
sys.stdin.readline()
"""


def write_synthetic(path: Path, samples: int) -> None:
    """An index as of ImageNet's layout, written block by block: nNNNNNNN/nNNNNNNN_MMMMMMMMM.JPEG, 33 bytes each."""
    each = len(name_block(0, 1, samples))

    def blocks(make: Callable[[int, int], np.ndarray], count: int) -> Iterator[np.ndarray]:
        return (make(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK))

    offsets = blocks(lambda start, stop: np.arange(start, stop, dtype=np.int64) * each, samples + 1)
    labels = blocks(lambda start, stop: (np.arange(start, stop) * CLASSES // samples).astype(np.int32), samples)
    names = blocks(lambda start, stop: name_block(start, stop, samples), samples)
    header = {
        "root": "/data/photos",
        "classes": [f"n{number:08d}" for number in range(CLASSES)],
        "samples": samples,
        "fingerprint": "0" * 32,
    }
    with index_file.replacing(path) as temporary:
        arrays = {
            "offsets": index_file.Blocks(np.dtype(np.int64), samples + 1, offsets),
            "labels": index_file.Blocks(np.dtype(np.int32), samples, labels),
            "paths": index_file.Blocks(np.dtype(np.uint8), samples * each, names),
        }
        index_file.write(temporary, header, arrays)


def name_block(start: int, stop: int, samples: int) -> np.ndarray:
    """The paths of some samples, one after the other, as bytes."""
    rows = np.arange(start, stop)
    folders, files = digits(rows * CLASSES // samples, 8), digits(rows, 10)
    letters = [np.full((len(rows), 1), ord(letter), np.uint8) for letter in "n/n_"]
    ending = np.tile(np.frombuffer(b".JPEG", np.uint8), (len(rows), 1))
    parts = [letters[0], folders, letters[1], letters[2], folders, letters[3], files, ending]
    return np.concatenate(parts, axis=1).reshape(-1)


def digits(numbers: np.ndarray, count: int) -> np.ndarray:
    """Decimal digits as letters, (numbers, count)."""
    powers = 10 ** np.arange(count - 1, -1, -1)
    return (numbers[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def ranks(path: Path, count: int) -> list[dict[str, Any]]:
    """What some processes say that have the index open at the same time."""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", RANK, str(path)]
    running = [subprocess.Popen([*command, str(n)], stdin=pipe, stdout=pipe, text=True) for n in range(count)]
    said = []
    for rank in running:
        assert rank.stdout is not None
        said.append(json.loads(rank.stdout.readline()))
    for rank in running:
        assert rank.stdin is not None
        rank.stdin.write("\n")
        rank.stdin.flush()
    for rank, facts in zip(running, said, strict=True):
        assert rank.stdout is not None
        facts.update(json.loads(rank.stdout.readline()))
    for rank in running:
        rank.communicate("\n")
    return said


def bench_open(scratch: Path, samples: int) -> dict[str, Any]:
    """Opening, sharing and asking a large index."""
    path = scratch / "large.index"
    started = time.perf_counter()
    write_synthetic(path, samples)
    result: dict[str, Any] = {
        "samples": samples,
        "file_bytes": path.stat().st_size,
        "write_s": time.perf_counter() - started,
    }
    os.posix_fadvise(descriptor := os.open(path, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    started = time.perf_counter()
    Index.open(path)
    result["open_cold_s"] = time.perf_counter() - started
    for count in (1, 2, 4):
        said = ranks(path, count)
        result[f"ranks_{count}"] = {
            "open_s": max(facts["open_s"] for facts in said),
            "first_plan_median_s": statistics.median(second for facts in said for second in facts["plan_s"]),
            "first_plan_worst_s": max(second for facts in said for second in facts["plan_s"]),
            "first_plan_worst_cpu_s": max(second for facts in said for second in facts["plan_cpu_s"]),
            "paths_per_s": statistics.median(facts["paths_per_s"] for facts in said),
            # "own" is what nobody else can have: not the file's pages. "private" counts also those pages of the file
            # that happen to be mapped by no other process at the moment.
            **{f"{kind}_mib": max(facts["after"][kind] for facts in said) for kind in ("own", "private", "pss", "rss")},
            "own_before_opening_mib": max(facts["before"]["own"] for facts in said),
        }
        print(count, "ranks:", {key: f"{value:.4g}" for key, value in result[f"ranks_{count}"].items()}, flush=True)
    return result


def bench_split(scratch: Path) -> dict[str, Any]:
    """Setting a tenth of the large index aside, and opening that again."""
    index = Index.open(scratch / "large.index")
    with PeakOfOwnMemory() as peak:
        made = seconds(lambda: index.split(0.1, cache=scratch / "split", progress=True))
    again = seconds(lambda: index.split(0.1, cache=scratch / "split"))
    return {"made_s": made, "again_s": again, "own_memory_of_the_one_who_makes_it_mib": peak.mib}


class PeakOfOwnMemory:
    """The most memory that this process had for itself, on top of what it had at the beginning."""

    def __enter__(self) -> Self:
        self.mib, self._before, self._over = 0.0, own_mib(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.mib = max(self.mib, own_mib() - self._before)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def own_mib() -> float:
    """Anonymous memory of this process."""
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) / 1024


def write_tree(root: Path, folders: int, files: int) -> None:
    """Empty files in folders: links to one in each, which is faster to make and looks the same to who lists them."""
    for folder in range(folders):
        path = root / f"n{folder:08d}"
        path.mkdir(parents=True)
        descriptor = os.open(path, os.O_RDONLY)
        names = [f"n{folder:08d}_{number:010d}.JPEG" for number in range(files)]
        os.close(os.open(names[0], os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        for name in names[1:]:
            os.link(names[0], name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
        os.close(descriptor)
    time.sleep(2.1)  # a tree changed just now is not trusted


def bench_build(scratch: Path, folders: int, files: int, rounds: int) -> dict[str, Any]:
    """Making an index of real files, and opening it from the cache."""
    root = scratch / "tree"
    write_tree(root, folders, files)
    counts = (1, 2, 4, 8, 16)
    local: dict[int, list[float]] = {threads: [] for threads in counts}
    remote: dict[int, list[float]] = {threads: [] for threads in counts}
    cached = []
    scandir = os.scandir

    def delayed(path: bytes) -> object:
        time.sleep(DELAY)
        return scandir(path)

    with PeakOfOwnMemory() as peak:  # true in a fresh process only: --samples 0
        Index.from_directory(root)
    for number in range(rounds):
        for threads in counts:
            local[threads].append(seconds(partial(Index.from_directory, root, threads=threads)))
        with mock.patch("os.scandir", delayed):
            for threads in counts:
                remote[threads].append(seconds(partial(Index.from_directory, root, threads=threads)))
        with_cache = partial(Index.from_directory, root, cache=scratch / "caches" / str(number))
        cached.append((seconds(with_cache), seconds(with_cache)))
    return {
        "files": folders * files,
        "folders": folders,
        "own_memory_while_it_is_made_mib": peak.mib,
        "threads_s": {threads: statistics.median(times) for threads, times in local.items()},
        f"threads_with_{DELAY * 1000:g}_ms_for_each_folder_s": {n: statistics.median(t) for n, t in remote.items()},
        "with_cache_first_s": statistics.median(first for first, _ in cached),
        "with_cache_again_s": statistics.median(again for _, again in cached),
    }


def seconds(work: Callable[[], object]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=100_000_000, help="0: only the folder of files")
    parser.add_argument("--folders", type=int, default=1000)
    parser.add_argument("--files", type=int, default=1000, help="in each folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, default=Path(__file__).parent / "results" / "index.json")
    parser.add_argument("--scratch", type=Path, help="where to write (55 bytes a sample, twice)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        results: dict[str, Any] = {
            "machine": {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}
        }
        if args.samples:
            results |= {"open": bench_open(Path(folder), args.samples), "split": bench_split(Path(folder))}
            for file in Path(folder).rglob("*.index"):
                file.unlink()
        results["build"] = bench_build(Path(folder), args.folders, args.files, args.rounds)
    print(json.dumps(results, indent=2))
    args.save.write_text(json.dumps(results, indent=2) + "\n")
    print(f"saved {args.save}")


if __name__ == "__main__":
    main()
