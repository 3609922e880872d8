"""Two ranks add two numbers with a wheel that is not installed yet."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from horovod_installer.build import pip
from horovod_installer.environment import Environment, mpi_version
from horovod_installer.processes import Workspace
from horovod_installer.progress import ticking

UNPACK_SECONDS = 300
RANKS_SECONDS = 300
STAGING = ".horovod-staging-"
PROOF = Path(__file__).with_name("allreduce.py")


@contextlib.contextmanager
def staging(env: Environment) -> Iterator[Path]:
    """A temporary folder beside site-packages: at the same depth, so that a library in it finds MPI the same way.

    Those of runs that were killed are removed first; the caller holds the lock.
    """
    for stale in env.packages.parent.glob(f"{STAGING}*"):
        with contextlib.suppress(FileNotFoundError), tempfile.TemporaryDirectory() as bin_:
            stale.rename(Path(bin_, "stale"))
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=env.packages.parent) as folder:
        yield Path(folder)


def verify(env: Environment, wheel: Path, folder: Path, workspace: Workspace, *, gpu: bool) -> None:
    """Unpacks a wheel and lets two ranks use it, under horovodrun and under mpirun.

    Raises:
        CommandError: it does not do what it should.
    """
    unpack = [*pip(env), "install", "--no-deps", "--no-index", "--target", folder, wheel]
    with ticking("unpacking the wheel to check it") as tick:
        workspace.run("unpacking", unpack, env.variables, timeout=UNPACK_SECONDS, while_waiting=tick)
    variables = {
        **env.variables,
        "PYTHONPATH": str(folder),
        "CUDA_VISIBLE_DEVICES": "-1",  # a machine may have one GPU, or none that is free
    }
    device = "gpu" if gpu else "cpu"
    steps: dict[str, list[str | Path]] = {
        "an import": [env.python, "-c", "import horovod.tensorflow"],  # horovodrun would hide why this fails
    }
    for controller, launcher in launchers(env).items():
        steps[f"an allreduce on 2 ranks over {controller}"] = [*launcher, env.python, PROOF, folder, controller, device]
    for what, command in steps.items():
        with ticking(f"checking it with {what}") as tick:
            workspace.run(what, command, variables, timeout=RANKS_SECONDS, while_waiting=tick)


def launchers(env: Environment) -> dict[str, list[str | Path]]:
    """How two ranks are started here: by Horovod's launcher, and by that of MPI."""
    horovodrun: list[str | Path] = [env.python, "-m", "horovod.runner.launch", "--gloo", "--disable-cache", "-np", "2"]
    mpirun: list[str | Path] = [env.tool("mpirun") or "mpirun", "-np", "2"]
    if "Open MPI" in (mpi_version(env) or ""):
        mpirun += ["--bind-to", "none", "--oversubscribe"]
        if os.geteuid() == 0:
            mpirun.append("--allow-run-as-root")
        if env.tool("ssh") is None:  # Open MPI looks for it, even for ranks on this machine alone
            mpirun += ["--mca", "plm_rsh_agent", "false"]
    return {"gloo": [*horovodrun, "-H", "localhost:2"], "mpi": mpirun}
