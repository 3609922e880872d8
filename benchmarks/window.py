"""Two settings of the host window: how many threads read, and how many images a thread takes at once.

    python benchmarks/window.py [--rounds 5]

Each is varied with the other as it is in dist_loader. Writes benchmarks/results/window.json and window.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

import dist_loader as dl
from benchmarks.loader import corpus, facts
from dist_loader.readers.image import ImageReader
from dist_loader.window import HostWindow

RESULTS = Path(__file__).parent / "results"
THREADS = (0.5, 1, 1.5, 2, 4)  # for each core
LENGTHS = (1, 2, 4, 8, 16, 32, 64)  # images
FRAMES = 8  # batches


def epoch(index: dl.Index, threads: int, length: int | None) -> float:
    """Images per second over an epoch; how long its first batch took is part of it."""
    reader = ImageReader(index, (corpus.SIZE, corpus.SIZE))
    plan = dl.Plan(len(index), world_size=1, device_batch=corpus.BATCH)
    started = time.perf_counter()
    window = HostWindow(
        reader, lambda key: (0, plan.batch(0, key, 0)[0]), corpus.BATCH, FRAMES, threads, 60.0, rows_at_once=length
    )
    for key in range(plan.steps):
        window.get(key, until=plan.steps)
    took = time.perf_counter() - started
    window.close()
    return len(index) / took


def main() -> None:
    """Measure in interleaved rounds, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--corpus", type=Path, default=corpus.cache_folder(), metavar="DIR")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    one = corpus.make(corpus.KINDS["small"], args.images, args.corpus, len(cores))
    index = dl.Index.from_directory(one.images)
    settings: dict[str, tuple[int, int | None]] = {}
    for per_core in THREADS:
        threads = max(1, round(per_core * len(cores)))
        settings[f"{threads} threads"] = threads, None
    for length in LENGTHS:
        settings[f"parts of {length}"] = len(cores), length
    rates: dict[str, list[float]] = {name: [] for name in settings}
    for number in range(args.rounds + 1):
        for name, how in settings.items():
            rate = epoch(index, *how)
            if number:  # the first round warms up
                rates[name].append(round(rate, 1))
        print(f"round {number} of {args.rounds}", flush=True)
    as_it_is = f"{len(cores)} threads"
    lines = [f"| setting | images/s | beside {as_it_is} |", "|---|---:|---:|"]
    for name, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[as_it_is], strict=True))
        lines.append(f"| {name} | {statistics.median(values):,.0f} | {ratio:.2f} |")
    known = facts.machine(cores)
    known["command"] = "python benchmarks/window.py " + " ".join(sys.argv[1:])
    machine = f"{known['command']}, {known['date']}, {known['cpu']}, {known['cores']} cores, commit {known['commit']}"
    text = "\n".join(["# The host window: threads and parts", "", *lines, "", machine, ""])
    print(text)
    args.results.mkdir(exist_ok=True)
    (args.results / "window.md").write_text(text, encoding="utf-8")
    content = json.dumps({"facts": known, "images_per_second": rates}, indent=1)
    (args.results / "window.json").write_text(content + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
