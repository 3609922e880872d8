"""What launch/mpirun.sh calls, by whichever mpirun there is. With real ones on two hosts it was tried by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.launch.conftest import LAUNCH

VERSIONS = {
    "Open MPI 4": "mpirun (Open MPI) 4.1.8",
    "Open MPI 5": "mpirun (Open MPI) 5.0.11",
    "MPICH": "HYDRA build details:\n    Version:                                 5.0.2",
}
COMMAND = ["-np", "2", "-H", "hostA:1,hostB:1", "python", "train.py", "a b", ""]


@pytest.fixture
def run(tmp_path: Path):
    """The script, in a checkout without an environment, with an mpirun that says how it was called."""
    (tmp_path / "launch").mkdir()
    for name in ("mpirun.sh", "environment.sh"):
        shutil.copy(LAUNCH / name, tmp_path / "launch")

    def called(version: str) -> tuple[int, list[str], str]:
        mpirun = tmp_path / "bin" / "mpirun"
        mpirun.parent.mkdir(exist_ok=True)
        mpirun.write_text(f"#!/bin/sh\n[ $# = 1 ] && echo '{version}' && exit\nprintf '%s\\0' \"$0\" \"$@\"\nexit 7\n")
        mpirun.chmod(0o755)
        env = {"PATH": f"{mpirun.parent}:{os.environ['PATH']}", "NCCL_DEBUG": "INFO", "SECRET": "x"}
        done = subprocess.run(
            [tmp_path / "launch" / "mpirun.sh", *COMMAND], env=env, capture_output=True, text=True, timeout=30
        )
        return done.returncode, done.stdout.split("\0")[:-1], done.stderr

    return called


@pytest.mark.parametrize("whose", VERSIONS)
def test_what_mpirun_is_told(whose: str, run, tmp_path: Path) -> None:
    code, (program, *arguments), _ = run(VERSIONS[whose])
    assert code == 7
    assert program == str(tmp_path / "bin" / "mpirun")  # whole, so that it is found on the other hosts, too
    assert arguments[-len(COMMAND) :] == COMMAND
    told = " ".join(arguments)
    if whose == "MPICH":
        assert "-bind-to none -genvall" in told
        return
    assert "--bind-to none" in told
    assert f"{'--mca' if whose == 'Open MPI 4' else '--prtemca'} oob_tcp_keepalive_time 5" in told
    assert "-x NCCL_DEBUG" in told
    assert "-x PATH" in told
    assert "SECRET" not in told
    assert ("--allow-run-as-root" in told) == (os.geteuid() == 0)


def test_an_mpirun_that_is_not_known(run) -> None:
    code, called, said = run("Intel(R) MPI Library")
    assert (code, called) == (2, [])
    assert "neither Open MPI 4 or 5 nor MPICH" in said
