"""A launcher and an ssh that are none, so that what is done with them can be seen in a moment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MPIRUN = """
import os, signal, subprocess, sys, time
if sys.argv[1:] == ["--version"]:
    sys.exit(print("mpirun (Open MPI) 4.1.8"))
size = int(sys.argv[sys.argv.index("-np") + 1])
rank_command = sys.argv[sys.argv.index("-m") - 1:]
def env(rank):
    names = {"RANK": rank, "SIZE": size, "LOCAL_RANK": rank, "LOCAL_SIZE": size}
    return {**os.environ, **{f"OMPI_COMM_WORLD_{name}": str(value) for name, value in names.items()}}
ranks = [subprocess.Popen(rank_command, env=env(rank)) for rank in range(size)]
signal.signal(signal.SIGTERM, lambda *_: [rank.kill() for rank in ranks])
failed = False
while any(rank.poll() is None for rank in ranks):
    time.sleep(0.01)
    if not failed and any(rank.returncode for rank in ranks):
        failed = True
        [rank.terminate() for rank in ranks]
sys.exit(int(failed))
"""

SSH = """
import subprocess, sys, time
host, command = sys.argv[-2:]
if host == "refused":
    print("ssh: connect to host refused port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
if host == "silent":
    time.sleep(60)
if host == "bare":
    sys.exit("/usr/bin/python: No module named dist_loader")
if host == "other":
    sys.exit("env: /opt/python: No such file or directory")
sys.exit(subprocess.run(["sh", "-c", command]).returncode)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """An environment in which the first programs on PATH are the ones above."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in {"mpirun": MPIRUN, "ssh": SSH}.items():
        program = folder / name
        program.write_text(f"#!{sys.executable} -S\n{text}")
        program.chmod(0o755)

    def environment(**more: str) -> dict[str, str]:
        plain = {
            name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "SLURM_", "HOROVOD_"))
        }
        return {**plain, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **more}

    return environment
