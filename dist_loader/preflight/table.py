"""The cells as a table for a terminal: a row for each check, a column for each host; below it, what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dist_loader.preflight.cells import Cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MARKS = {"ok": "", "warn": "? ", "bad": "! "}
WIDEST = 120  # letters of a line; more hosts than fit come in further tables


def table(cells: Sequence[Cell], color: bool = False) -> str:
    """The table alone, its lines ended.

    Args:
        cells: of all hosts; those without a host are of the job, and come last.
        color: red for what is bad, yellow for warnings, with a terminal's escape codes.
    """
    checks = list(dict.fromkeys(cell.check for cell in cells if cell.host))
    hosts = list(dict.fromkeys(cell.host for cell in cells if cell.host))
    at = {(cell.check, cell.host): cell for cell in cells}
    left = max((len(cell.check) for cell in cells), default=0)
    widths = {host: max([len(host), *(len(_text(at.get((check, host)))) for check in checks)]) for host in hosts}
    lines: list[str] = []
    for block in _blocks(hosts, widths, WIDEST - left):
        if lines:
            lines.append("")
        lines.append(_line("", left, [host.ljust(widths[host]) for host in block]))
        for check in checks:
            row = [_colored(at.get((check, host)), widths[host], color=color) for host in block]
            lines.append(_line(check, left, row))
    lines += [_line(cell.check, left, [_colored(cell, 0, color=color)]) for cell in cells if not cell.host]
    return "".join(f"{line}\n" for line in lines)


def advice(cells: Iterable[Cell], level: str) -> list[str]:
    """What to do about the cells of a level, each text once."""
    return list(dict.fromkeys(cell.do for cell in cells if cell.level == level))


def _blocks(hosts: Sequence[str], widths: dict[str, int], room: int) -> list[list[str]]:
    """The hosts, so many side by side as fit."""
    blocks: list[list[str]] = []
    used = 0
    for host in hosts:
        if not blocks or used + widths[host] + 2 > room:
            blocks.append([])
            used = 0
        blocks[-1].append(host)
        used += widths[host] + 2
    return blocks


def _line(check: str, left: int, row: Sequence[str]) -> str:
    return "  ".join([check.ljust(left), *row]).rstrip()


def _text(cell: Cell | None) -> str:
    return "-" if cell is None else MARKS[cell.level] + cell.text


def _colored(cell: Cell | None, width: int, *, color: bool) -> str:
    text = _text(cell).ljust(width)
    if cell is None or cell.level == "ok" or not color:
        return text
    return f"\033[{31 if cell.level == 'bad' else 33}m{text}\033[0m"
