"""Whether anything grows: 200,000 steps of the loader, with faults, and memory and open files watched.

    python benchmarks/long_run.py [--steps 200000]

One ImageSequence with on_bad="replace" is drawn from for so many steps, epoch after epoch. Every 100 steps something
happens to its 512 files: one is cut short, emptied, removed, replaced by a folder or a named pipe, made of other bytes,
or mended again. Every 1,000 steps a pass is left in the middle and another begun, and every 20,000 the sequence is
closed in between. Every 500 steps (or ten times, in a shorter run) the process's resident memory (VmRSS), what of it is
its own (RssAnon), its open files and its threads are noted. Prints them for each tenth of the run; saves
benchmarks/results/long_run.json and, where matplotlib is there, long_run.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
from PIL import Image

import dist_loader as dl

FILES = 512
COLUMNS = ("step", "resident_mebibytes", "own_mebibytes", "open_files", "threads")
Row = tuple[int, float, float, int, int]
RESULTS = Path(__file__).parent / "results"


def write_images(folder: Path) -> list[Path]:
    """Small files, JPEG and PNG."""
    rng = np.random.default_rng(0)
    (folder / "class").mkdir(parents=True)
    paths = [folder / f"class/{number:03d}.{'jpg' if number % 2 else 'png'}" for number in range(FILES)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    return paths


def _removed(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def faults(whole: Path) -> list[Callable[[Path], object]]:
    """What may happen to a file."""

    def cut(path: Path) -> None:
        content = (whole / path.name).read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return [
        cut,
        lambda path: path.write_bytes(b""),
        lambda path: None,
        Path.mkdir,
        os.mkfifo,
        lambda path: path.write_bytes(os.urandom(300)),
    ]


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000)
    args = parser.parse_args()
    rng = np.random.default_rng(1)
    noted_every = max(1, min(500, args.steps // 10))
    with tempfile.TemporaryDirectory() as scratch:
        paths = write_images(Path(scratch, "images"))
        whole = Path(shutil.copytree(paths[0].parent, Path(scratch, "whole")))
        ways = faults(whole)
        train = dl.ImageSequence(
            dl.Index.from_directory(Path(scratch, "images")),
            size=(16, 16),
            device_batch=4,
            host_batch=64,
            world=dl.World(0, 1, 0, 1),
            on_bad="replace",
            bad_budget=FILES,
            bad_file=Path(scratch, "bad_samples.jsonl"),
        )
        broken: list[Path] = []
        rows: list[Row] = []
        started, step, batches = time.monotonic(), 0, None
        while step < args.steps:
            batches = batches or train.get_numpy_iterator()
            if next(batches, None) is None:
                batches = None
                continue
            step += 1
            if step % 100 == 0:
                path = paths[rng.integers(FILES)]
                _removed(path)
                ways[rng.integers(len(ways))](path)
                broken.append(path)
                if len(broken) > FILES // 16:
                    mended = broken.pop(0)
                    _removed(mended)
                    shutil.copy(whole / mended.name, mended)
            if step % 1_000 == 0:
                batches = None
            if step % 20_000 == 0:
                train.close()
            if step % noted_every == 0:
                rows.append((step, *_memory(), len([*Path("/proc/self/fd").iterdir()]), threading.active_count()))
        seconds = time.monotonic() - started
        train.close()
        bad = len(train.bad_samples.marks())
    length = max(1, len(rows) // 10)
    tenths = [rows[at : at + length] for at in range(0, len(rows), length)][:10]
    print("steps to    resident, MiB    own memory, MiB    open files    threads")
    for tenth in tenths:
        resident, own, files, threads = (median(row[at] for row in tenth) for at in (1, 2, 3, 4))
        print(f"{tenth[-1][0]:8,}    {resident:13.1f}    {own:15.1f}    {files:10.0f}    {threads:7.0f}")
    print(f"{seconds:.0f} s, {bad} of {FILES} files were bad at some time")
    facts = {"machine": platform.platform(), "cores": os.cpu_count(), "seconds": seconds, "bad_samples": bad}
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    (RESULTS / "long_run.json").write_text(json.dumps({**facts, **columns}) + "\n")
    _plot(rows)


def _memory() -> tuple[float, float]:
    """Resident, and what of it is the process's own; MiB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    resident, own = (int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return resident, own


def _plot(rows: list[Row]) -> None:
    try:
        from matplotlib import pyplot as plt
    except ImportError:
        print("no matplotlib, no plot")
        return
    steps, resident, own, files, _ = zip(*rows, strict=True)
    figure, left = plt.subplots(figsize=(8, 3.2), layout="constrained")
    left.plot(steps, resident, color="tab:blue", linewidth=1, label="resident")
    left.plot(steps, own, color="tab:blue", linewidth=1, linestyle="dashed", label="its own")
    left.legend(loc="lower left", frameon=False)
    left.set(xlabel="steps", ylabel="memory, MiB", ylim=(0, 1.2 * max(resident)))
    right = left.twinx()
    right.plot(steps, files, color="tab:orange", linewidth=1)
    right.set(ylabel="open files", ylim=(0, 2 * max(files)))
    figure.savefig(RESULTS / "long_run.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
