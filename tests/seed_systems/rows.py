"""The programs in docs/from-keras-generators.md, by the row that each is of."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "from-keras-generators.md"


def programs(language: str = "python") -> dict[str, str]:
    """The first program of each section, by the id that its heading begins with."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {text.split(maxsplit=1)[0]: re.search(rf"```{language}\n(.*?)```", text, re.DOTALL) for text in sections}
    return {name: program[1] for name, program in found.items() if program is not None}
