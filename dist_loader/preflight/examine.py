"""The whole look at a job's hosts: facts, comparison, and the allreduce of one number."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.launching.choose import find_program
from dist_loader.preflight.built import library
from dist_loader.preflight.cells import Cell
from dist_loader.preflight.compare import Plan
from dist_loader.preflight.facts import Wanted
from dist_loader.preflight.trial import Tried, attempt, program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.launching.hosts import Host
    from dist_loader.launching.signals import Signals
    from dist_loader.launching.starter import Starter
    from dist_loader.preflight.compare import Heard


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes:
        starter: the launcher.
        here: names of hosts that are this machine.
        script: the job's file as it was given; None: there is none, or it is a program.
        data: a folder or a saved index; None: there is none.
    """

    starter: Starter
    here: tuple[str, ...]
    script: str | None = None
    data: str | None = None

    def wanted(self) -> Wanted:
        """What each host is asked to look at."""
        return Wanted(
            folder=str(Path.cwd()),
            script=None if self.script is None else str(Path(self.script).absolute()),
            data=None if self.data is None else str(Path(self.data).absolute()),
            mpirun=self._mpirun(),
        )

    def plan(self, ranks: Mapping[str, int]) -> Plan:
        """What is to run, with so many ranks on each host."""
        wanted = self.wanted()
        return Plan(
            launcher=self.starter.launcher,
            ranks=ranks,
            gloo=self.starter.gloo,
            oversubscribe=self.starter.request.wish.oversubscribe,
            interfaces=self.starter.request.interfaces,
            folder=wanted.folder,
            script=wanted.script,
            data=wanted.data,
            here=self.here,
        )

    def _mpirun(self) -> str | None:
        if self.starter.launcher == "mpirun":
            return self.starter.program
        return find_program("mpirun", self.starter.env) if self.starter.launcher == "horovodrun-mpi" else None


def spread(hosts: Sequence[Host], ranks: int) -> dict[str, int]:
    """How many ranks each host gets: its slots, one host after the other; what is beyond them all goes around."""
    given: dict[str, int] = {}
    left = ranks
    for host in hosts:
        given[host.name] = min(host.slots or 1, left)
        left -= given[host.name]
    for number in range(left):
        given[hosts[number % len(hosts)].name] += 1
    return given


def add_one_number(
    subject: Subject, hosts: Sequence[Host], ranks: int, interfaces: Sequence[str], signals: Signals
) -> tuple[Cell, Tried]:
    """The allreduce, and its cell of the table."""
    starter = subject.starter
    callers = [host.name for host in hosts if host.name not in subject.here]
    command = starter.command(program(starter.meets_on), ranks, hosts, interfaces)
    if starter.launcher in ("gloo", "horovodrun-mpi") and Path(command[0]).parent == Path(sys.executable).parent:
        command = [sys.executable, "-m", "dist_loader.preflight.horovodrun", *command[1:]]
    tried = attempt(command, starter.env, signals, callers, ranks, gloo=starter.gloo)
    how = {"gloo": "horovodrun --gloo", "horovodrun-mpi": "horovodrun --mpi"}.get(starter.launcher, starter.launcher)
    text = f"{ranks} ranks by {how}"
    if tried.problem is None:
        return Cell("allreduce", "", "ok", f"{text}, {tried.seconds:.1f} s"), tried
    problem = tried.problem.partition("; what it says is above")[0]
    do = f"one number could not be added over {text}: {problem}"
    if callers and "before any rank had started" not in problem:
        do += "; a firewall between the hosts (all TCP ports), or the wrong network (--network-interfaces)"
    return Cell("allreduce", "", "bad", f"{text}: failed", do), tried


def has_horovod(heard: Mapping[str, Heard]) -> bool:
    """Whether there is one to try, on every host that answered; on this machine, if none could be asked."""
    if not heard:
        return library() is not None
    return all(each.facts.horovod is not None for each in heard.values() if each.facts is not None)
