"""What docs/launching.md shows, run."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from dist_loader.cli.launch import request
from dist_loader.launching.launch import launch

DOCS = (Path(__file__).parents[2] / "docs" / "launching.md").read_text(encoding="utf-8")
DRY = re.findall(r"^\$ (.*--dry-run.*)\n(.*)$", DOCS, re.MULTILINE)
SHOWN = re.findall(r"^\$ (dist-loader launch .*?)(?:  #.*)?$", DOCS, re.MULTILINE)


@pytest.mark.parametrize(("typed", "printed"), DRY)
def test_dry_runs(
    typed: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, says in {
        "mpirun": "mpirun (Open MPI) 4.1.8",
        "horovodrun": "0.28.1",
        "srun": "slurm",
        "nvidia-smi": "\n".join(f"GPU {n}: NVIDIA H100" for n in range(4)),
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "train.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    variables, _, arguments = typed.partition("dist-loader launch ")
    env = dict(word.split("=", 1) for word in shlex.split(variables))
    assert launch(request(shlex.split(arguments)), {"PATH": str(tmp_path), **env}) == 0
    out = capsys.readouterr().out.replace(sys.executable, "/home/me/.venv/bin/python")
    assert out.replace(str(tmp_path), "/home/me/.venv/bin") == f"{printed}\n"


def test_the_table_of_recipes() -> None:
    table = (Path(__file__).parents[2] / "launch" / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"dist-loader launch [^`'|]*(?:'[^'|]*'[^`'|]*)*launch/train.py[^`'|]*", table)
    assert len(shown) >= 5
    for typed in shown:
        assert request(shlex.split(typed)[2:]).script == ("launch/train.py", "--data", "photos/train")


def test_it_shows_some() -> None:
    assert len(DRY) == 3
    assert len(SHOWN) >= 6
    for typed in SHOWN:
        assert request(shlex.split(typed)[2:]).script[0] in ("train.py", "launch/train.py")
