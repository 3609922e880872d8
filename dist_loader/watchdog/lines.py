"""What ranks say to each other: one JSON object in a line of bounded length.

Nothing else of a line is trusted: what has another form, type or range than it should is dropped.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from dist_loader.watchdog.place import DOINGS, STAGES, Doing, Stage

LONGEST = 1 << 17  # bytes of a line; a table of a thousand ranks fits
_LONGEST_TEXT = 1000
_LARGEST = 1 << 53

How = Literal["done", "left", "failed", "followed"]
_HOWS: tuple[How, ...] = get_args(How)


@dataclass(frozen=True)
class State:
    """Where a rank says it is.

    Attributes:
        count: see `Place`, as the next four.
        stage: of the work.
        epoch: from 0.
        step: from 0.
        doing: what it does there.
        seconds: for how long.
        cpu: seconds of the processor that it used there.
        detail: what it waits for, or where in the code it is; "" if that is not known.
    """

    count: int = 0
    stage: Stage = "training"
    epoch: int = 0
    step: int = -1
    doing: Doing = "preparing"
    seconds: float = 0.0
    cpu: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class End:
    """How a rank's training ended.

    Attributes:
        how: "done"; "left", by `SystemExit`; "failed", by an error of its own; "followed": its communication failed, as
            it does when another rank is gone.
        reason: one line.
    """

    how: How
    reason: str = ""


def encoded(kind: str, **values: object) -> bytes:
    """A line."""
    return json.dumps({"kind": kind, **values}).encode() + b"\n"


def decoded(line: bytes) -> dict[str, Any]:
    """A line's object; an empty one if it is none."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


async def next_line(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next line's object; None at the end, or where it is no line."""
    try:
        line = await reader.readline()
    except (OSError, ValueError):  # reset; too long
        return None
    return decoded(line) if line.endswith(b"\n") else None


def state_line(state: State) -> bytes:
    """A line that tells a state."""
    return encoded("state", **asdict(state))


def state_in(line: dict[str, Any]) -> State:
    """The state that a line tells."""
    stage, doing = line.get("stage"), line.get("doing")
    return State(
        count=int(number_in(line, "count")),
        stage=stage if stage in STAGES else "training",
        epoch=int(number_in(line, "epoch")),
        step=int(number_in(line, "step", lowest=-1)),
        doing=cast("Doing", doing) if doing in DOINGS else "between",
        seconds=number_in(line, "seconds"),
        cpu=number_in(line, "cpu"),
        detail=text_in(line, "detail"),
    )


def end_in(line: dict[str, Any]) -> End:
    """The end that a line tells."""
    how = line.get("how")
    return End(how if how in _HOWS else "failed", text_in(line, "reason"))


def number_in(line: dict[str, Any], name: str, lowest: float = 0) -> float:
    """A number of a line, in bounds."""
    value = line.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value < _LARGEST:
        return lowest
    return value


def text_in(line: dict[str, Any], name: str, longest: int = _LONGEST_TEXT) -> str:
    """A text of a line, of bounded length, without characters that a terminal would obey."""
    value = line.get(name)
    return printable(value, longest) if isinstance(value, str) else ""


def printable(text: str, longest: int = _LONGEST_TEXT) -> str:
    """A text that can be shown: of bounded length, without control characters but line ends."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text[:longest])
