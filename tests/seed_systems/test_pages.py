"""The programs of other pages, each run once on one device."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.distributed.launching import ROOT, Launch, run
from tests.seed_systems.data import make

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]

PAGES = ("augmentation", "labels")
JOB = Path(__file__).parent / "job.py"


def test_the_programs_train(tmp_path: Path) -> None:
    make(tmp_path)
    names = []
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        shown = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        found = [program for program in shown if "strategy.fit" in program]
        assert found, page
        for number, program in enumerate(found):
            (tmp_path / f"{page}-{number}.py").write_text(program)
            names.append(f"{page}-{number}={page}-{number}.py")
    done = run(["env", f"--chdir={tmp_path}", *Launch("python").command(JOB, ".", "auto", *names)])
    assert done.returncode == 0, done.stderr[-3000:]
