"""The table of docs/failures.md, "When a job fails": whether it has a row for a message, as the code words it."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

DOC = Path(__file__).parents[1] / "docs" / "failures.md"

# What differs from job to job: "...", numbers of ranks, what is in parentheses or quotes, and words with a digit or a
# slash in them.
_VALUE = re.compile(r"""\.\.\.|\branks? [\d-]+(?:, [\d-]+)*|\s*\([^)]*\)|'[^']*'|[^\s:;,]*[\d/][^\s:;,]*""")


@cache
def rows() -> tuple[re.Pattern[str], ...]:
    """A pattern for each message in the first column."""
    text = DOC.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    messages = [message for line in lines for message in re.findall(r"`([^`]+)`", line.split(" | ")[0])]
    return tuple(re.compile(".*".join(map(re.escape, _VALUE.split(message)))) for message in messages)


def documented(text: str) -> bool:
    """Whether the table has a row for a line of a text."""
    return any(row.search(line) for row in rows() for line in text.splitlines())
