"""The commands that docs/doctor.md shows can be typed, and its rows are those of the table."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from dist_loader.cli import doctor, launch
from tests.preflight.test_compare import cells

DOCS = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")


def test_the_commands_can_be_typed() -> None:
    typed = [shlex.split(line)[1:] for line in re.findall(r"^\$ (dist-loader .*)$", DOCS, re.MULTILINE)]
    assert len(typed) >= 3
    for command, *arguments in typed:
        asked = {"doctor": doctor.request, "launch": launch.request}[command](arguments)
        assert asked.launcher or asked.control


def test_every_row_is_explained() -> None:
    explained = {name for row in re.findall(r"^\| ([a-z/][^|]*) \|", DOCS, re.MULTILINE) for name in row.split(", ")}
    assert {cell.check for cell in cells()} | {"gloo", "allreduce"} <= explained
