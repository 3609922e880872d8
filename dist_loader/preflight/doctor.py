"""All that `dist-loader doctor` finds out."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.launching.choose import find_program
from dist_loader.launching.hosts import find_hosts
from dist_loader.launching.launch import common_interface
from dist_loader.launching.machine import count_cores, is_here
from dist_loader.launching.signals import Signals
from dist_loader.launching.sizing import first_size, with_slots
from dist_loader.launching.starter import Starter
from dist_loader.preflight.ask import answers, ask_facts, ask_nodes
from dist_loader.preflight.cells import Cell
from dist_loader.preflight.compare import Heard, compare
from dist_loader.preflight.examine import Subject, add_one_number, has_horovod, spread
from dist_loader.preflight.strategies import Way, ways

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.launching.choose import Request
    from dist_loader.launching.hosts import Hosts

PROGRAMS = ("horovodrun", "mpirun", "srun")


@dataclass(frozen=True)
class Findings:
    """What was found.

    Attributes:
        cells: of the table.
        ways: to train on this machine; none for several.
        heard: from each host.
        wrote: the last lines of ranks that failed.
        code: 0 if a job could run, 1 if something must be mended, or 128 and a signal.
    """

    cells: tuple[Cell, ...]
    ways: tuple[Way, ...] = ()
    heard: Mapping[str, Heard] = field(default_factory=dict)
    wrote: tuple[str, ...] = ()
    code: int = 0


def examine(request: Request, env: Mapping[str, str]) -> Findings:
    """Look at the hosts of a job, and try an allreduce if all is well.

    Raises:
        ConfigError: the hosts or the launcher that were asked for do not exist.
    """
    hosts = find_hosts(request.hosts, request.hostfile, env)
    here = tuple(host.name for host in hosts.hosts if is_here(host.name))
    alone = len(here) == len(hosts.hosts)
    starter = _starter(request, hosts, env, alone=alone)
    subject = Subject(starter, here, next(iter(request.script), None), request.check_data)
    wanted = subject.wanted()
    if alone and wanted.mpirun is None:
        wanted = replace(wanted, mpirun=find_program("mpirun", env))
    names = [host.name for host in hosts.hosts]
    with Signals() as signals:
        if starter.launcher == "srun":
            heard = ask_nodes(starter.program, names, wanted, env)
        else:  # a batch system's hosts need not allow ssh to them
            heard = ask_facts(here if hosts.allocated else names, here, wanted, env)
        found = _ways(next(iter(heard.values())), env) if alone else ()
        gpus = {host: each.facts.usable for host, each in heard.items() if each.facts is not None}
        sized = with_slots(hosts, gpus, count_cores(), 2 if alone else request.wish.ranks)
        wish = request.wish
        if hosts.source == "this machine" and wish.ranks is None and not any(gpus.values()):
            wish = replace(wish, ranks=min(2, sized[0].slots or 1))  # enough to see that they find each other
        ranks = first_size(sized, wish)
        trains = not alone or request.launcher is not None or request.control is not None
        cells = compare(heard, replace(subject.plan(spread(sized, ranks)), trains=trains))
        tried = None
        if not _bad(cells) and starter.launcher != "local" and has_horovod(heard):
            interfaces = request.interfaces or common_interface(answers(heard, here))
            cell, tried = add_one_number(subject, sized, ranks, interfaces, signals)
            if tried.stopped_by is None:
                cells.append(cell)
    code = int(_bad(cells) or (alone and not any(way.works for way in found)))
    if tried is not None and tried.stopped_by is not None:
        code = 128 + tried.stopped_by
    return Findings(tuple(cells), tuple(found), heard, () if tried is None else tried.wrote, code)


def _bad(cells: list[Cell]) -> bool:
    return any(cell.level == "bad" for cell in cells)


def _starter(request: Request, hosts: Hosts, env: Mapping[str, str], *, alone: bool) -> Starter:
    """The launcher to try: on one machine, where nobody named one, Horovod's, though one process needs none."""
    if alone and request.launcher is None and hosts.source != "Slurm":
        name = next((n for n in ("horovodrun", "mpirun") if find_program(n, env)), None)
        if name is None or (name == "mpirun" and request.control == "gloo"):
            if request.control is not None:
                raise ConfigError(f"--{request.control} needs horovodrun, which is not on PATH: it comes with Horovod")
            return Starter(request, "local", "", None, env)
        request = replace(request, launcher=name)
    return Starter.chosen(request, hosts, env)


def _ways(heard: Heard, env: Mapping[str, str]) -> tuple[Way, ...]:
    if heard.facts is None:
        return ()
    programs = {name: find_program(name, env) for name in PROGRAMS}
    return tuple(ways(heard.facts, programs, _slurm(programs["srun"], env)))


def _slurm(srun: str | None, env: Mapping[str, str]) -> str | None:
    """What the srun of an allocation says of the ways to start MPI; None without an allocation."""
    if srun is None or "SLURM_JOB_ID" not in env:
        return None
    try:
        said = subprocess.run(
            [srun, "--mpi=list"], capture_output=True, text=True, timeout=5, check=False, env=dict(env)
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout + said.stderr
