"""Two settings of the host window: how many threads read, and how many images a thread takes at once.

    python benchmarks/window.py [--rounds 5]

Writes benchmarks/results/window.json and window.md. Each is varied with the other as it is in dist_loader. The length
of a part is no parameter of `HostWindow`, so the method that cuts a batch into parts is replaced for this measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script

import dist_loader as dl
from benchmarks.loader import corpus, facts
from dist_loader import pipeline

RESULTS = Path(__file__).parent / "results"
THREADS = (0.5, 1, 1.5, 2, 4)  # for each core
LENGTHS = (1, 2, 4, 8, 16, 32, 64)  # images


def epoch(index: dl.Index, threads: int, length: int | None) -> float:
    """Images per second over an epoch, and how long its first batch took is part of it."""
    pipelines: Any = pipeline.Pipeline
    original: Callable[..., Any] = pipelines._batch  # noqa: SLF001
    if length is not None:

        def cut(own: Any, key: int, frame: Any) -> Any:
            batch = original(own, key, frame)
            if batch.unread:
                batch.unread = [slice(at, at + length) for at in range(0, len(batch.numbers), length)]
            return batch

        pipelines._batch = cut  # noqa: SLF001
    try:
        sequence = dl.ImageSequence(index, (corpus.SIZE, corpus.SIZE), corpus.BATCH, threads=threads)
        sequence.read_ahead_to(1)
        started = time.perf_counter()
        for step in range(len(sequence)):
            _ = sequence[step]
        took = time.perf_counter() - started
        sequence.close()
    finally:
        pipelines._batch = original  # noqa: SLF001
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
