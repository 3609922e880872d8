"""Programs that are none, and hosts that are this machine with something wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The host "older" has another keras, "bare" another folder; "silent" never answers.
SSH = """
import subprocess, sys, time
host, command = sys.argv[-2:]
if host == "refused":
    print("ssh: connect to host refused port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
if host == "silent":
    time.sleep(60)
if host == "older":
    command = command.replace("PYTHONPATH=", "PYTHONPATH=%s:")
sys.exit(subprocess.run(["sh", "-c", command]).returncode)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """An environment with programs of one's own first on PATH, without any of a batch system's variables."""
    folder = tmp_path / "bin"
    folder.mkdir()
    older = tmp_path / "older"
    package(older, "keras", "3.14.0")

    def environment(fakes: dict[str, str], **more: str) -> dict[str, str]:
        for name, text in {"ssh": SSH % older, **fakes}.items():
            program = folder / name
            program.write_text(f"#!{sys.executable} -S\n{text}")
            program.chmod(0o755)
        families = ("OMPI_", "SLURM_", "HOROVOD_", "PMI")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(families)}
        return {**plain, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), **more}

    return environment


def package(folder: Path, name: str, version: str) -> None:
    """What pip leaves of an installed package, as far as its version goes."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
