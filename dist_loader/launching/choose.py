"""What a job is asked to be, and which launcher starts it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.launching.commands import Launcher, Mpi, mpi_of
from dist_loader.launching.machine import count_gpus
from dist_loader.launching.sizing import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.launching.hosts import Hosts


@dataclass(frozen=True)
class Request:
    """A job as the command line asks for it; `docs/launching.md` tells what each means."""

    script: tuple[str, ...]
    wish: Wish = field(default_factory=Wish)
    hosts: str | None = None
    hostfile: str | None = None
    launcher: str | None = None
    control: str | None = None
    interfaces: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    log_dir: str | None = None
    grace: float = 30.0
    restarts: int = 0
    dry_run: bool = False
    preflight: bool = True
    check_data: str | None = None


def choose_launcher(request: Request, hosts: Hosts, env: Mapping[str, str]) -> tuple[Launcher, str]:
    """The launcher, and where its program is.

    Without --with: srun inside of a Slurm allocation; else horovodrun, or mpirun for --mpi or where horovodrun is not
    installed. No launcher at all for one process on this machine, unless it has several GPUs.

    Raises:
        ConfigError: it is not installed, or cannot do what was asked for.
    """
    name, control = request.launcher, request.control
    if name is None:
        one = request.wish.ranks == 1 or (request.wish.ranks is None and count_gpus(env) <= 1)
        if hosts.source == "this machine" and one and count_gpus(env) <= 1 and control is None:
            return "local", ""
        if hosts.source == "Slurm" and control is None and shutil.which("srun", path=env.get("PATH")):
            name = "srun"
        elif control != "mpi" and find_program("horovodrun", env):
            name = "horovodrun"
        elif control != "gloo" and find_program("mpirun", env):
            name = "mpirun"
        else:
            raise ConfigError(
                f"found no {'horovodrun' if control == 'gloo' else 'mpirun'} on PATH or beside {sys.executable}"
            )
    if name == "local":
        if (request.wish.ranks or 1) != 1 or hosts.source in ("-H", request.hostfile):
            raise ConfigError("--with local is one process on this machine; leave out -np, -H and --hostfile")
        return "local", ""
    program = find_program(name, env)
    if program is None:
        raise ConfigError(f"{name} is neither on PATH nor beside {sys.executable}")
    if name == "horovodrun":
        return ("horovodrun-mpi" if control == "mpi" else "gloo"), program
    return ("srun" if name == "srun" else "mpirun"), program


def meets_by_gloo(launcher: Launcher, mpi: str | None, control: str | None) -> bool:
    """Whether `launch` itself tells the ranks where they meet.

    By default where MPI would have to fit: srun's PMI, or an MPICH, with the MPI that Horovod was built with.
    """
    if launcher == "srun" or (launcher == "mpirun" and mpi == "MPICH"):
        return control != "mpi"
    return launcher == "mpirun" and control == "gloo"


def what_to_run(script: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The command behind SCRIPT ARGS: a .py file is run by this Python, anything else is a program.

    Raises:
        ConfigError: there is no such file or program.
    """
    name = script[0]
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise ConfigError(f"no script {name!r} in {Path.cwd()}")
        return (sys.executable, *script)
    if shutil.which(name, path=env.get("PATH")) is None:
        raise ConfigError(f"{name!r} is neither a script that ends with .py nor a program on PATH")
    return tuple(script)


def which_mpi(program: str, launcher: Launcher, env: Mapping[str, str]) -> tuple[Mpi | None, str]:
    """Whose mpirun will be called, and the folder that this MPI is in; None and "" if none is.

    Raises:
        ConfigError: it is missing, does not work, or is one that is not known here.
    """
    if launcher not in ("mpirun", "horovodrun-mpi"):
        return None, ""
    mpirun = program if launcher == "mpirun" else find_program("mpirun", env)
    if mpirun is None:
        raise ConfigError(f"horovodrun --mpi calls mpirun, which is neither on PATH nor beside {sys.executable}")
    try:
        said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=20, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{mpirun} --version does not work: {error}") from error
    return mpi_of(said.stdout + said.stderr), str(Path(mpirun).absolute().parents[1])


def find_program(name: str, env: Mapping[str, str]) -> str | None:
    """A program on PATH, or beside this Python, where pip puts it."""
    return shutil.which(name, path=env.get("PATH")) or shutil.which(name, path=str(Path(sys.executable).parent))
