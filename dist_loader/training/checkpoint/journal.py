"""The log of committed steps: which optimizer updates the checkpoints hold, each listed once.

One JSON line for the steps between two checkpoints: `{"epoch": 2, "first": 40, "steps": 20, ...}`. What was trained
after the last checkpoint, and lost with the process, is not in it. The training goes on from there, so the lines of an
epoch follow each other without a gap, and over all of them each step of each epoch occurs exactly once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dist_loader.atomic import write_whole
from dist_loader.training.checkpoint.position import Position

_NAME = "steps.jsonl"


class Journal:
    """The log in a folder of checkpoints. For rank 0 alone.

    Args:
        folder: of the checkpoints.
        steps: of an epoch; None if they are not known, as those of a stream in an earlier run.
        facts: what is written beside each line: world size, global batch, seed.
    """

    def __init__(self, folder: Path, steps: Callable[[int], int | None], facts: dict[str, Any]) -> None:
        self._path = folder / _NAME
        self._steps = steps
        self._facts = facts
        self._end = Position()

    def start(self, position: Position) -> None:
        """Make the log end at a position: what is later goes, and what a killed writer could not add comes."""
        lines = []
        end = Position()
        for line in read(self._path.parent):
            first = Position(line["epoch"], line["first"])
            last = Position(line["epoch"], line["first"] + line["steps"])
            if self._same(first, end) and last <= position:
                lines.append(json.dumps(line))
                end = last
        lines += self._lines(end, position)
        write_whole(self._path, "".join(f"{line}\n" for line in lines))
        self._end = position

    def commit(self, position: Position) -> None:
        """Add the steps up to a position, which a checkpoint holds from now on."""
        lines = list(self._lines(self._end, position))
        self._end = position
        if lines:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("".join(f"{line}\n" for line in lines))
                file.flush()
                os.fsync(file.fileno())

    def _same(self, first: Position, end: Position) -> bool:
        return first == end or (first == Position(end.epoch + 1) and self._steps(end.epoch) in (end.step, None))

    def _lines(self, start: Position, end: Position) -> Iterator[str]:
        for epoch in range(start.epoch, end.epoch + 1):
            first = start.step if epoch == start.epoch else 0
            steps = (end.step if epoch == end.epoch else self._steps(epoch) or 0) - first
            if steps > 0:
                yield json.dumps({"epoch": epoch, "first": first, "steps": steps, **self._facts})


def read(folder: str | Path) -> list[dict[str, Any]]:
    """The lines of the log in a folder of checkpoints; one that a killed writer left half written does not count."""
    try:
        text = (Path(folder) / _NAME).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    lines = []
    for line in text.split("\n")[:-1]:
        try:
            found = json.loads(line)
            if all(isinstance(found[name], int) for name in ("epoch", "first", "steps")):
                lines.append(found)
        except (ValueError, KeyError, TypeError):
            continue
    return lines
