"""Starting real ranks, each launch with a bound on its time."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

JOBS = Path(__file__).parent / "jobs"
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Launch:
    """One way to start a job.

    Attributes:
        launcher: "python", "horovodrun", "gloo" (horovodrun, somewhat faster) or "mpi" (mpirun).
        ranks: how many processes.
        replicas: logical CPU devices of each process, for MirroredStrategy.
    """

    launcher: str
    ranks: int = 1
    replicas: int = 1

    def __str__(self) -> str:
        return f"{self.launcher}-{self.ranks}x{self.replicas}"

    def command(self, *program: str | Path) -> list[str]:
        """The command that starts a Python program this way."""
        python = [sys.executable, *map(str, program)]
        if self.launcher == "python":
            return python
        if self.launcher in ("horovodrun", "gloo"):
            horovodrun = [str(BIN / "horovodrun")]
            if (
                self.launcher == "gloo"
            ):  # without its first step, to import TensorFlow and see that Horovod has Gloo: 5 s
                horovodrun = [sys.executable, "-m", "dist_loader.preflight.horovodrun"]
            return [*horovodrun, "--gloo", "--disable-cache", "-np", str(self.ranks), *python]
        as_root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        return [str(BIN / "mpirun"), *as_root, "--oversubscribe", "--bind-to", "none", "-np", str(self.ranks), *python]


def environment(**more: str) -> dict[str, str]:
    """This process's environment, with the programs of its Python first, and no launcher's variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HOROVOD_", "OMPI_", "PMI", "PMIX_", "SLURM_"))}
    return {
        **clean,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **more,
    }


def run(
    command: Sequence[str], timeout: float = 240, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; output as text. All it started is gone afterwards, also when it takes too long.

    The temporary folder is the job's own: TensorFlow leaves files there when it is killed.
    """
    with tempfile.TemporaryDirectory(prefix="dist_loader-test-") as scratch:
        process = subprocess.Popen(
            command,
            env={**(env or environment()), "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            out, err = process.communicate()
            raise AssertionError(f"{command} did not end within {timeout} s\n{out[-3000:]}\n{err[-3000:]}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)
