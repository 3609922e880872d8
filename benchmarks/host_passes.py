"""What several passes over the host batch give where reading is slower than training.

    python benchmarks/host_passes.py [--rounds 3]

Files come with a delay, as from a network disk, and training a batch takes a fixed time: both only wait, so that little
depends on how busy this machine is. An epoch is gone over with one pass, two and four. Prints the steps a second, and
writes them to benchmarks/results/host_passes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

import numpy as np
from PIL import Image

import dist_loader as dl
from benchmarks.loader import facts
from dist_loader.readers.source import Content, LocalFiles

RESULT = Path(__file__).parent / "results" / "host_passes.json"
SAMPLES, BATCH, HELD, THREADS = 1024, 32, 512, 4
FETCH, STEP = 0.010, 0.020  # seconds for a file, and for a batch on the device
PASSES = (1, 2, 4)


def rate(index: dl.Index, passes: int) -> float:
    """Steps a second over an epoch, from its first batch on."""
    train = dl.ImageSequence(
        index, (32, 32), BATCH, HELD, threads=THREADS, host_passes=passes, world=dl.World(0, 1, 0, 1)
    )
    train.read_ahead_to(1)
    _ = train[0]
    started = time.perf_counter()
    for step in range(len(train)):
        batch = train[step]
        time.sleep(STEP)
        del batch
    took = time.perf_counter() - started
    train.close()
    return len(train) / took


def main() -> None:
    """Measure in interleaved rounds, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULT, metavar="FILE")
    args = parser.parse_args()
    read = LocalFiles.read

    def slowly(files: LocalFiles, path: str) -> Content:
        time.sleep(FETCH)
        return read(files, path)

    rates: dict[int, list[float]] = {passes: [] for passes in PASSES}
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(LocalFiles, "read", slowly):
        (Path(folder) / "class").mkdir()
        for number in range(SAMPLES):
            Image.fromarray(np.full((32, 32, 3), number % 256, np.uint8)).save(f"{folder}/class/{number:04}.png")
        index = dl.Index.from_directory(folder)
        for _ in range(args.rounds):
            for passes in PASSES:
                rates[passes].append(rate(index, passes))
    medians = {str(passes): round(statistics.median(some), 1) for passes, some in rates.items()}
    for times, steps in medians.items():
        print(f"host_passes={times}: {steps} steps a second")
    settings = {"samples": SAMPLES, "batch": BATCH, "host_batch": HELD, "threads": THREADS}
    delays = {"seconds_a_file": FETCH, "seconds_a_step": STEP}
    machine = facts.machine(sorted(os.sched_getaffinity(0))) | {"command": " ".join(["python", *sys.argv])}
    result = {"steps_per_second": medians, "rounds": args.rounds, **settings, **delays, "machine": machine}
    args.results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
