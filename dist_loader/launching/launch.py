"""Launches a job: finds hosts and launcher, builds the command, starts it, and starts it again after a failure."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.launching.commands import Job, Launcher, Mpi, command, exported, mpi_of, rank_command
from dist_loader.launching.hosts import find_hosts
from dist_loader.launching.machine import count_cores, count_gpus, is_here
from dist_loader.launching.messages import VARIABLE
from dist_loader.launching.probe import Answer, ask
from dist_loader.launching.signals import Signals
from dist_loader.launching.sizing import Wish, first_size, next_size, pause, with_slots
from dist_loader.launching.supervise import Ended, supervise
from dist_loader.launching.switchboard import Switchboard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.launching.hosts import Host, Hosts
    from dist_loader.launching.switchboard import RankEnd

GOOD_RUN = 600.0  # seconds after which a failure counts as the first again
USAGE = 2  # the exit code of what a restart cannot mend


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


def launch(request: Request, env: Mapping[str, str] = os.environ) -> int:
    """Run a job to its end; its exit code.

    Raises:
        ConfigError: it cannot be run as it was asked for.
    """
    hosts = find_hosts(request.hosts, request.hostfile, env)
    launcher, program = choose_launcher(request, hosts, env)
    script = rank_command(sys.executable, what_to_run(request.script, env), request.log_dir)
    away = () if hosts.allocated or launcher in ("local", "srun") else _away(hosts)
    gpus = {host.name: count_gpus(env) for host in hosts.hosts if host.slots is None and host.name not in away}
    mpi = _mpi(program, launcher, env)

    def job(ranks: int, on: Sequence[Host], interfaces: tuple[str, ...]) -> Job:
        return Job(
            launcher=launcher,
            program=program,
            mpi=mpi,
            ranks=ranks,
            hosts=tuple(on),
            rank_command=script,
            exported=exported({*env, VARIABLE, "DIST_LOADER_RESTARTS"}, request.exports),
            interfaces=interfaces,
            oversubscribe=request.wish.oversubscribe,
            as_root=os.geteuid() == 0,
            options=request.options,
        )

    if request.dry_run:
        if any(host.slots is None and host.name in away for host in hosts.hosts):
            raise ConfigError("--dry-run asks no host for its GPUs; give each its slots, as in -H hostA:2,hostB:2")
        sized = with_slots(hosts, gpus, count_cores(), request.wish.ranks)
        print(shlex.join(command(job(_size(launcher, sized, request.wish), sized, request.interfaces))), flush=True)
        return 0

    with Signals() as signals:
        answers = ask(away, env)
        if problems := [answer.problem for answer in answers.values() if answer.problem]:
            raise ConfigError("; ".join(problems))
        gpus |= {name: answer.gpus for name, answer in answers.items()}
        sized = with_slots(hosts, gpus, count_cores(), request.wish.ranks)
        ranks = first = _size(launcher, sized, request.wish)
        usable: Sequence[Host] = sized
        failures = restarts = 0
        while True:
            interfaces = request.interfaces or _common_interface(answers)
            ended = _run(command(job(ranks, usable, interfaces)), env, request, signals, usable, ranks, restarts)
            if ended.failure is not None:  # the last word, behind what the launcher has to say about it
                say(f"{ended.failure}, the first to fail{_log_of(ended.failure, request)}")
            failures = 1 if ended.seconds >= GOOD_RUN else failures + 1
            if not may_go_on(ended, failures, request.restarts):
                return ended.code
            while True:
                seconds = pause(failures)
                say(f"starting again in {seconds:g} s, for the {_count(failures, 'time')} of {request.restarts}")
                if stopped_by := signals.sleep(seconds):
                    return 128 + stopped_by
                answers = ask(away, env)
                usable = [host for host in sized if not answers.get(host.name, Answer()).problem]
                for answer in answers.values():
                    if answer.problem:
                        say(answer.problem)
                if (size := next_size(usable, first, request.wish)) is not None:
                    break
                say(f"{sum(host.slots or 1 for host in usable)} slots are left, which is too few to go on")
                failures += 1
                if failures > request.restarts:
                    return ended.code
            if size != ranks:
                say(f"going on with {size} ranks instead of {ranks}")
            ranks, restarts = size, restarts + 1


def may_go_on(ended: Ended, failures: int, restarts: int) -> bool:
    """Whether a job is started again. Not after success, a signal from outside, or what is the user's to mend."""
    return ended.code not in (0, USAGE) and ended.stopped_by is None and failures <= restarts


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
        elif control != "mpi" and _which("horovodrun", env):
            name = "horovodrun"
        elif control != "gloo" and _which("mpirun", env):
            name = "mpirun"
        else:
            raise ConfigError(
                f"found no {'horovodrun' if control == 'gloo' else 'mpirun'} on PATH or beside {sys.executable}"
            )
    if name == "local":
        if (request.wish.ranks or 1) != 1 or hosts.source in ("-H", request.hostfile):
            raise ConfigError("--with local is one process on this machine; leave out -np, -H and --hostfile")
        return "local", ""
    if control == "gloo" and name != "horovodrun":
        raise ConfigError(f"--gloo needs --with horovodrun: ranks of {name} find each other by MPI")
    program = _which(name, env)
    if program is None:
        raise ConfigError(f"{name} is neither on PATH nor beside {sys.executable}")
    if name == "horovodrun":
        return ("horovodrun-mpi" if control == "mpi" else "gloo"), program
    return ("srun" if name == "srun" else "mpirun"), program


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


def say(line: str) -> None:
    """Tell the user."""
    print(f"dist-loader: {line}", file=sys.stderr, flush=True)


def _run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    request: Request,
    signals: Signals,
    hosts: Sequence[Host],
    ranks: int,
    restarts: int,
) -> Ended:
    say(f"$ {shlex.join(arguments)}")
    switchboard = Switchboard((host.name for host in hosts if not is_here(host.name)), ranks)
    # horovodrun itself imports TensorFlow, whose start-up notes are no news.
    told = {"TF_CPP_MIN_LOG_LEVEL": "2", **env, VARIABLE: switchboard.address(), "DIST_LOADER_RESTARTS": str(restarts)}
    folder = tempfile.mkdtemp(prefix="dist_loader-launch-")
    return supervise(arguments, told, switchboard, signals, folder, request.grace, say)


def _log_of(failure: RankEnd, request: Request) -> str:
    if request.log_dir is None:
        return ""
    return f"; what it wrote is in {Path(request.log_dir) / f'rank-{failure.rank}.log'}"


def _size(launcher: Launcher, hosts: Sequence[Host], wish: Wish) -> int:
    return 1 if launcher == "local" else first_size(hosts, wish)


def _away(hosts: Hosts) -> tuple[str, ...]:
    return tuple(host.name for host in hosts.hosts if not is_here(host.name))


def _common_interface(answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """The interface that leads from every host to every other, if it has the same name on all of them."""
    names = {name for answer in answers.values() if not answer.problem for name in (answer.interface, answer.here)}
    return tuple(name for name in names if name) if len(names) == 1 else ()


def _mpi(program: str, launcher: Launcher, env: Mapping[str, str]) -> Mpi | None:
    if launcher not in ("mpirun", "horovodrun-mpi"):
        return None
    mpirun = program if launcher == "mpirun" else _which("mpirun", env)
    if mpirun is None:
        raise ConfigError(f"horovodrun --mpi calls mpirun, which is neither on PATH nor beside {sys.executable}")
    try:
        said = subprocess.run([mpirun, "--version"], capture_output=True, text=True, timeout=20, check=False, env=env)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{mpirun} --version does not work: {error}") from error
    return mpi_of(said.stdout + said.stderr)


def _which(name: str, env: Mapping[str, str]) -> str | None:
    """A program on PATH, or beside this Python, where pip puts it."""
    return shutil.which(name, path=env.get("PATH")) or shutil.which(name, path=str(Path(sys.executable).parent))


def _count(number: int, word: str) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else endings.get(number % 10, 'th')} {word}"
