"""Random rows of an array in a file larger than the host batch: how fast do batches come, in how much memory?

    python benchmarks/arrays.py [--rounds 3] [--mib 256 4096]

A float32 `.npy` file, cold (its pages are dropped before each run, and it is on a disk) and warm (all in the page
cache), an epoch or at most 400 batches of 64 rows in random order from the second on, each of:

* `ArraySequence(path)`, ours, and ours given `np.load(path, mmap_mode="r")[:]`, a view, which it reads as a map;
* a `keras.utils.PyDataset` that slices the map, `x[order[64 * i : ...]]`, which is what Keras itself does in
  `fit(x=map)`; by Keras's own enqueuer with 2 workers;
* `model.fit(x=map)`'s own adapter, drawn as a tf.data.Dataset;
* `tf.data.Dataset.from_tensor_slices(map)`, shuffled over the whole, which must take all of it into memory first.

Each run is a process of its own, forked from one that has imported everything and run nothing. "own" is the most memory
that it had for itself beyond what it had at first (RssAnon), "read" is what came from the disk, over the bytes of the
rows. Writes benchmarks/results/arrays.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np

from benchmarks.loader import facts
from benchmarks.memory import Memory

RESULT = Path(__file__).parent / "results" / "arrays.json"
BATCH, HOST_BATCH, MOST = 64, "64MiB", 400
ROWS = (32, 768, 37_632)  # float32 values in a row: 128 B, 3 kB, 150 kB
LARGE = 1024  # MiB of a file from which on it is only read cold, and by ways that do not take all of it into memory
WAYS = ("ours", "ours, of a map", "PyDataset", "fit(x=map)", "from_tensor_slices")


def batches(way: str, path: str) -> Iterator[Any]:
    """The batches of an epoch, for ever."""
    import keras
    import tensorflow as tf

    import dist_loader as dl

    if way.startswith("ours"):
        x = path if way == "ours" else np.load(path, mmap_mode="r")[:]
        ours = dl.ArraySequence(x, device_batch=BATCH, host_batch=HOST_BATCH, remainder="drop")
        while True:
            for step in range(len(ours)):
                yield ours[step]
            ours.epoch += 1
    x = np.load(path, mmap_mode="r")
    if way == "PyDataset":

        class Slices(keras.utils.PyDataset):  # type: ignore[misc]
            order = np.random.default_rng(0).permutation(len(x))

            def __len__(self) -> int:
                return len(x) // BATCH

            def __getitem__(self, at: int) -> tuple[Any, ...]:
                return (x[self.order[at * BATCH : (at + 1) * BATCH]],)

        from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

        adapter: Any = PyDatasetAdapter(Slices(workers=2), shuffle=False)
        adapter.on_epoch_begin()
        yield from adapter.get_tf_dataset()
    elif way == "fit(x=map)":
        from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

        yield from ArrayDataAdapter(x, batch_size=BATCH, shuffle=True).get_tf_dataset()
    else:
        data = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x), seed=0)
        yield from data.batch(BATCH, drop_remainder=True).prefetch(2)


def one(way: str, path: str, cold: bool) -> dict[str, float]:
    """One run, in this process."""
    import tensorflow as tf

    tf.zeros(1).numpy()
    rows, length = np.load(path, mmap_mode="r").shape
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        if cold:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while file.read(1 << 24):
                pass
    memory = Memory("RssAnon")
    before, read = memory.now(), _read_bytes()
    started = time.perf_counter()
    source = batches(way, path)
    steps = min(MOST, rows // BATCH)
    next(source)
    first = time.perf_counter() - started
    cpu = time.process_time()
    for _ in range(steps - 1):
        next(source)
    took = time.perf_counter() - started - first
    return {
        "rows_per_second": (steps - 1) * BATCH / took,
        "cpu_us_per_row": 1e6 * (time.process_time() - cpu) / ((steps - 1) * BATCH),
        "first_batch_s": first,
        "own_mib": memory.peak - before,
        "read_of_rows": (_read_bytes() - read) / (steps * BATCH * 4 * length),
    }


def _read_bytes() -> int:
    return int(Path("/proc/self/io").read_text().split("read_bytes:")[1].split()[0])


def main() -> None:
    """Measure in interleaved rounds, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, nargs="+", default=[256, 4096], help="of each file")
    parser.add_argument("--folder", help="on a disk; by default the folder for temporary files")
    parser.add_argument("--results", type=Path, default=RESULT, metavar="FILE")
    args = parser.parse_args()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tensorflow", "dist_loader.sequence.array"])
    found = []
    print(
        "| file | row | pages | way | rows/s | CPU a row | first batch | own memory | read / rows |\n"
        + "|---" * 9
        + "|"
    )
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for mib, length in itertools.product(args.mib, ROWS):
            large = mib > LARGE
            if large and length == ROWS[0]:
                continue
            path = f"{folder}/{length}.npy"
            rows = (mib << 20) // (4 * length)
            array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, length))
            array[:] = np.arange(rows, dtype=np.float32)[:, None]
            array.flush()
            del array
            os.sync()
            runs: dict[tuple[str, str], list[dict[str, float]]] = {}
            for _ in range(args.rounds):
                for pages in ("cold",) if large else ("cold", "warm"):
                    for way in WAYS[:3] if large else WAYS:
                        with context.Pool(1) as process:
                            runs.setdefault((pages, way), []).append(process.apply(one, (way, path, pages == "cold")))
            for (pages, way), some in runs.items():
                medians = {name: round(statistics.median(run[name] for run in some), 2) for name in some[0]}
                found.append({"row_bytes": 4 * length, "pages": pages, "way": way, "file_mib": mib, **medians})
                rate, cpu, first, own, read = medians.values()
                print(
                    f"| {mib} MiB | {4 * length} B | {pages} | {way} | {rate:,.0f} | {cpu:,.1f} us | {first:.2f} s "
                    f"| {own:,.0f} MiB | {read:.1f} |",
                    flush=True,
                )
            Path(path).unlink()
    settings = {"batch": BATCH, "host_batch": HOST_BATCH, "most_batches": MOST, "rounds": args.rounds}
    command = " ".join(["python", "benchmarks/arrays.py", *sys.argv[1:]])
    machine = facts.machine(sorted(os.sched_getaffinity(0))) | {"command": command}
    args.results.write_text(json.dumps({"rows": found, **settings, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
