"""Processes that try images, and one that watches them: what dies or hangs is told, and the rest goes on."""

from __future__ import annotations

import multiprocessing
import resource
import time
import warnings
from dataclasses import dataclass, field
from typing import Any

from benchmarks.fuzz.images import mutated, originals
from benchmarks.fuzz.outcome import OUTCOMES, Outcome, Trial

HANG = 20.0  # seconds
MEMORY = 4 << 30
_MOST_TOLD = 40


@dataclass
class Found:
    """What was found out, by all processes.

    Attributes:
        counts: by kind and outcome.
        slowest: seconds, by kind.
        told: lines about what must not be.
        crashes: processes that died.
        hangs: processes that were ended.
    """

    counts: dict[str, list[int]]
    slowest: dict[str, float] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    crashes: int = 0
    hangs: int = 0


def work(numbers: range, seed: int, at: Any, results: Any) -> None:
    """Try the images of some numbers; `at` says which is tried now."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    kinds = originals()
    trial = Trial(kinds["JPEG"])
    for number in numbers:
        at.value = number
        kind, data = mutated(number, seed, kinds)
        started = time.perf_counter()
        outcome = trial.of(data)
        results.send((number, kind, outcome, time.perf_counter() - started))


def watch(numbers: range, seed: int, found: Found) -> None:
    """Have processes try the images of some numbers, one process at a time."""
    context = multiprocessing.get_context("spawn")
    while len(numbers):
        ours, theirs = context.Pipe(duplex=False)
        at = context.Value("q", -1, lock=False)
        process = context.Process(target=work, args=(numbers, seed, at, theirs), daemon=True)
        process.start()
        theirs.close()
        hung = False
        try:
            while True:
                if not ours.poll(HANG):
                    hung = True
                    process.kill()
                    break
                note(found, *ours.recv())
        except EOFError:
            pass
        process.join()
        if process.exitcode == 0:
            return
        if at.value < 0:
            raise RuntimeError(f"a process that was to try images did not start; its exit code is {process.exitcode}")
        found.hangs += hung
        found.crashes += not hung
        found.told.append(f"{'hang' if hung else f'crash, exit code {process.exitcode}'} at image {at.value}")
        numbers = numbers[numbers.index(at.value) + 1 :]


def note(found: Found, number: int, kind: str, outcome: Outcome, seconds: float) -> None:
    """Add what became of an image."""
    found.counts[kind][OUTCOMES.index(outcome)] += 1
    found.slowest[kind] = max(found.slowest.get(kind, 0.0), seconds)
    if outcome in ("leak", "other error") or (outcome == "black" and len(found.told) < _MOST_TOLD):
        found.told.append(f"{outcome} at image {number} ({kind})")
