#!/usr/bin/env python3
"""The timing table of the articles, all of its cells: their methods beside ours, on 1 and 2 ranks.

    python -m benchmarks.article_table [--epochs 2] [--rounds 1]

MobileNetV2 of 96 x 96 pixels on 1,000 photo-like JPEG files. Each cell is a process (or two ranks) of its own, one
after the other; with more rounds, the ways take turns and medians are given. Time runs from the first sample that is
read to the end of the training, compiling included. Writes benchmarks/results/article_table.{md,json,svg}.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.loader import corpus, facts

RESULTS = Path(__file__).parent / "results"
BATCH = 25  # of a rank on 2 ranks, half of that on one: the global batch is the same
WAYS = {
    "original-memory": "the articles': all in memory, float32",
    "original-0": "the articles': `Sequence`, no workers",
    "original-4": "the articles': `Sequence`, 4 worker processes",
    "ours-memory": "ours: `ArraySequence`, all in memory",
    "ours-files": "ours: `ImageSequence`, from files",
    "ours-cache": "ours: `ImageSequence` with a cache",
}
_LONGEST = 200.0  # seconds for a cell


def cell(way: str, ranks: int, folder: Path, epochs: int) -> dict[str, Any]:
    """What a way says of itself; with an "error" if it failed."""
    program = [sys.executable, "-m", "benchmarks.articles.way", way, str(folder), str(2 * BATCH // ranks), str(epochs)]
    launcher = [shutil.which("horovodrun") or "horovodrun", "--gloo", "--disable-cache", "-np", str(ranks)]
    command = program if ranks == 1 else [*launcher, *program]
    root = Path(__file__).parents[1]
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": str(root)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, env=env, cwd=root, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"no end within {_LONGEST:g} s"}
    lines = [line[line.index("{") :] for line in done.stdout.splitlines() if '{"way"' in line]
    if done.returncode or not lines:
        return {"error": f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"}
    found: dict[str, Any] = json.loads(lines[0])
    return found


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = parser.parse_args()
    images = corpus.make(corpus.KINDS["small"], 1000, corpus.cache_folder(), os.cpu_count() or 1).images
    cells: dict[str, dict[int, list[dict[str, Any]]]] = {way: {1: [], 2: []} for way in args.ways}
    for number in range(args.rounds):
        for ranks in (1, 2):
            for way in args.ways:
                found = cell(way, ranks, images, args.epochs)
                cells[way][ranks].append(found)
                what = found.get("error") or f"{found['seconds']:.1f} s"
                print(f"round {number + 1}, {ranks} ranks, {way}: {what}", flush=True)
    machine = facts.machine(sorted(os.sched_getaffinity(0)))
    machine["command"] = " ".join(["python", "-m", "benchmarks.article_table", *sys.argv[1:]])
    write(cells, args.epochs, machine)


def write(cells: dict[str, dict[int, list[dict[str, Any]]]], epochs: int, machine: dict[str, Any]) -> None:
    """The table, the plot and all figures."""
    seconds = {way: {ranks: _median(found) for ranks, found in of.items()} for way, of in cells.items()}
    lines = [
        "# The articles' timing table",
        "",
        f"MobileNetV2, 96 x 96 pixels, 1,000 JPEG files of some 455 x 400, {epochs} epochs, global batch {2 * BATCH}.",
        f"Seconds, compiling included. {machine['cores']} cores ({machine['cpu']}), {machine['date']}:",
        f"`{machine['command']}`.",
        "",
        "| way | 1 rank | 2 ranks |",
        "|---|---:|---:|",
        *(f"| {WAYS[way]} | {_text(of[1])} | {_text(of[2])} |" for way, of in seconds.items()),
        "",
        "On 2 ranks the articles' methods get every second sample each, and a hand-written Horovod loop: Horovod's own",
        "Keras integration averages nothing in Keras 3. Their worker processes are spawned there, and each imports",
        "TensorFlow first: forked ones hang beside Horovod. The last epoch alone, seconds:",
        "",
        "| way | 1 rank | 2 ranks |",
        "|---|---:|---:|",
        *(f"| {WAYS[way]} | {_text(_last(of[1]))} | {_text(_last(of[2]))} |" for way, of in cells.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (RESULTS / "article_table.md").write_text(text, encoding="utf-8")
    whole = {"machine": machine, "epochs": epochs, "cells": cells}
    (RESULTS / "article_table.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    _plot(seconds)


def _median(found: list[dict[str, Any]]) -> float | None:
    values = [one["seconds"] for one in found if "seconds" in one]
    return statistics.median(values) if values else None


def _last(found: list[dict[str, Any]]) -> float | None:
    values = [one["epochs"][-1] for one in found if "epochs" in one]
    return statistics.median(values) if values else None


def _text(seconds: float | None) -> str:
    return "failed" if seconds is None else f"{seconds:.1f}"


def _plot(seconds: dict[str, dict[int, float | None]]) -> None:
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        print("no matplotlib, no plot")
        return
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    names = [WAYS[way].replace("`", "") for way in seconds]
    for offset, ranks, color in ((-0.2, 1, "tab:blue"), (0.2, 2, "tab:orange")):
        places = [at + offset for at in range(len(names))]
        axes.barh(places, [of[ranks] or 0 for of in seconds.values()], 0.38, color=color, label=f"{ranks} ranks")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="seconds")
    axes.legend()
    figure.savefig(RESULTS / "article_table.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
