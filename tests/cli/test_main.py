"""The command line itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dist_loader
from dist_loader.cli.launch import request
from dist_loader.cli.main import main

words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
flags = st.sampled_from(["--", "-np", "-H", "--dry-run", "--help", "-h", "--with", ":", "", "-", "-x"])


@settings(max_examples=40)
@given(st.lists(words | flags, max_size=6), st.booleans())
def test_what_is_behind_the_script_is_the_scripts(more: list[str], dashes: bool) -> None:
    asked = request(["-np", "2", "--restarts", "3", *(["--"] if dashes else []), "train.py", *more])
    assert asked.script == ("train.py", *more)
    assert (asked.wish.ranks, asked.restarts, asked.dry_run, asked.hosts) == (2, 3, False, None)


def test_it_starts_fast_and_needs_nothing_heavy() -> None:
    """What takes time to import is not imported. (Without it: 0.1 s of processor time.)"""
    program = "import sys; from dist_loader.cli.main import main; main(['--version'])"
    heavy = ("numpy", "tensorflow", "keras", "horovod", "mpi4py", "PIL", "cv2", "typer", "rich")
    check = f"import atexit, sys; atexit.register(lambda: print(*(set({heavy}) & set(sys.modules)))); {program}"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"dist-loader {dist_loader.__version__}\n\n")


def test_bench_needs_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [])
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["bench"]) == 2
    assert "in the folder of a checkout" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["launch", "--frobnicate", "x.py"]])
def test_a_command_line_that_means_nothing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_options_of_the_launcher_are_split_as_in_a_shell() -> None:
    asked = request(["--launcher-args=--gpus-per-task=1 --comment 'two words'", "-x", "A", "-x", "B", "train.py"])
    assert asked.options == ("--gpus-per-task=1", "--comment", "two words")
    assert asked.exports == ("A", "B")
