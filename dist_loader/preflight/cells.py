"""A cell of the table: one check of one host."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

Level = Literal["ok", "warn", "bad"]


@dataclass(frozen=True)
class Cell:
    """What a check found on a host.

    Attributes:
        check: its name, the row of the table.
        host: as the job names it, the column.
        level: "bad": a job cannot run like that; "warn": it can, and may be slow or fail later.
        text: what was found, in a few words.
        do: what is wrong, and what to do about it, in one line; empty for "ok".
    """

    check: str
    host: str
    level: Level
    text: str
    do: str = ""


def most_common(values: Mapping[str, Hashable]) -> Hashable:
    """What most hosts have; of several, what the first of these hosts has."""
    return Counter(values.values()).most_common(1)[0][0] if values else None


def alike(
    check: str,
    values: Mapping[str, str | None],
    do: str,
    *,
    missing: str = "missing",
    level: Level = "bad",
) -> list[Cell]:
    """Cells of a value that must be the same on all hosts; those that differ from most are not well.

    Args:
        check: the name of the check.
        values: of each host; None: it has none.
        do: what to do, with "{wanted}" for what most have.
        missing: what a host without a value shows.
        level: of a host that differs.
    """
    wanted = most_common({host: value for host, value in values.items() if value is not None})
    cells = []
    for host, value in values.items():
        if value == wanted:
            cells.append(Cell(check, host, "ok", str(value)))
        else:
            has = f"has {check} {value}" if value else f"has no {check}"
            advice = f"{host} {has}, others have {wanted}: {do.format(wanted=wanted)}"
            cells.append(Cell(check, host, level, value or missing, advice))
    return cells


def sized(count: int) -> str:
    """Bytes for people: "24 GiB"."""
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << power:
            number = count / (1 << power)
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{count} B"
