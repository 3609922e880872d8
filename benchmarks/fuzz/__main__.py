"""Mutated images through the reader, in processes that are watched.

    python -m benchmarks.fuzz [--images 100000] [--seed 0] [--save]

A process that dies is a crash of the decoder, one that spends more than 20 s on an image a hang; both are told with the
image's number, and another process goes on behind it. Each may take 4 GiB of address space. Prints a table; --save
writes it to benchmarks/results/fuzz.md, --show N writes the image of a number to the file fuzz-N.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import cv2
import PIL
import simplejpeg

from benchmarks.fuzz.images import mutated, originals
from benchmarks.fuzz.outcome import OUTCOMES
from benchmarks.fuzz.watching import HANG, Found, watch

RESULTS = Path(__file__).parents[1] / "results" / "fuzz.md"


def table(found: Found, images: int, seed: int, seconds: float) -> str:
    """What was found out, as Markdown."""
    libraries = {"simplejpeg": simplejpeg, "Pillow": PIL, "OpenCV": cv2}
    versions = ", ".join(f"{name} {library.__version__}" for name, library in libraries.items())
    versions += f", Python {platform.python_version()}"
    totals = [sum(column) for column in zip(*found.counts.values(), strict=True)]
    slowest = {**found.slowest, "all": max(found.slowest.values())}
    rows = [
        f"| {kind} | {sum(counts):,} | {' | '.join(f'{count:,}' for count in counts)} | {1e3 * slowest[kind]:.0f} |"
        for kind, counts in {**found.counts, "all": totals}.items()
    ]
    return "\n".join(
        [
            f"`python -m benchmarks.fuzz --images {images} --seed {seed}`: {seconds:.0f} s; {versions}.",
            "",
            f"Crashes: {found.crashes}. Hangs (more than {HANG:g} s): {found.hangs}.",
            "",
            f"| kind | images | {' | '.join(OUTCOMES)} | slowest, ms (two readings) |",
            f"|---|{'---:|' * (len(OUTCOMES) + 2)}",
            *rows,
            "",
            *(f"* {line}" for line in found.told),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first image")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--show", type=int, metavar="N")
    args = parser.parse_args()
    kinds = originals()
    if args.show is not None:
        Path(f"fuzz-{args.show}").write_bytes(mutated(args.show, args.seed, kinds)[1])
        return
    found = Found({kind: [0] * len(OUTCOMES) for kind in kinds})
    started = time.perf_counter()
    watch(range(args.first, args.first + args.images), args.seed, found)
    text = table(found, args.images, args.seed, time.perf_counter() - started)
    print(text)
    if args.save:
        RESULTS.write_text(f"# Mutated images\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
