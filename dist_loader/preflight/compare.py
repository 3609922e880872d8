"""From the facts of the hosts to cells: what fits, what does not, and what to do. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dist_loader.preflight import machines, software
from dist_loader.preflight.cells import Cell
from dist_loader.preflight.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.launching.commands import Launcher


@dataclass(frozen=True)
class Plan:
    """What is to run on the hosts.

    Attributes:
        launcher: what starts the ranks.
        ranks: how many on each host.
        oversubscribe: ranks may share a GPU.
        interfaces: the network interfaces that were asked for; none: the launcher finds them.
        folder: the working folder.
        script: the job's file; None: there is none.
        data: what was asked for; None: nothing.
        here: names of hosts that are this machine.
        trains: it is a training with Horovod for sure.
        gloo: the ranks of mpirun or srun meet by Gloo all the same.
    """

    launcher: Launcher
    ranks: Mapping[str, int]
    oversubscribe: bool = False
    interfaces: tuple[str, ...] = ()
    folder: str = ""
    script: str | None = None
    data: str | None = None
    here: tuple[str, ...] = ()
    trains: bool = False
    gloo: bool = False

    @property
    def mpi(self) -> bool:
        """Whether the ranks find each other by MPI."""
        return self.launcher in ("horovodrun-mpi", "mpirun", "srun") and not self.gloo


@dataclass(frozen=True)
class Heard:
    """What a host said, or why it did not.

    Attributes:
        facts: of the host; None if there was a problem.
        problem: in one line.
        began: when it was asked, in seconds since 1970 by this machine's clock.
        ended: when the answer was there, likewise.
    """

    facts: Facts | None = None
    problem: str = ""
    began: float = field(default=0.0, compare=False)
    ended: float = field(default=0.0, compare=False)


def compare(heard: Mapping[str, Heard], plan: Plan) -> list[Cell]:
    """All cells, row by row; those of a host that said nothing are left out, but for the first."""
    facts = {host: each.facts for host, each in heard.items() if each.facts is not None}
    cells = [_reached(host, each, plan) for host, each in heard.items()]
    if not facts:
        return cells
    cells += software.versions(facts, needed=plan.trains)
    cells += software.mpi(facts) if plan.mpi else software.gloo(facts) if plan.gloo or plan.launcher == "gloo" else []
    cells += machines.gpus(facts, plan.ranks, oversubscribe=plan.oversubscribe)
    cells += machines.files(facts, plan.folder, plan.script)
    cells += machines.data(facts, plan.data)
    cells += this_machine(facts, plan)
    if len(heard) > 1:
        cells += [_clock(host, each) for host, each in heard.items() if each.facts is not None]
        cells += machines.network(facts, plan.launcher, plan.interfaces)
    return cells


def this_machine(facts: Mapping[str, Facts], plan: Plan) -> list[Cell]:
    """The cells of limits and space, which are known in a moment."""
    total = sum(plan.ranks.values())
    cells = machines.space(facts)
    cells += machines.shared_memory(facts, plan.ranks, mpi=plan.mpi)
    return cells + machines.limits(facts, total)


def _reached(host: str, each: Heard, plan: Plan) -> Cell:
    if each.facts is None:
        return Cell("reached", host, "bad", "no", each.problem)
    return Cell("reached", host, "ok", "this machine" if host in plan.here else f"{each.ended - each.began:.1f} s")


CLOCKS = 5.0  # seconds


def _clock(host: str, each: Heard) -> Cell:
    """By how much a clock is off at least: it told times of before it was asked, or of after it had answered."""
    assert each.facts is not None
    early, late = each.began - each.facts.clock[0], each.facts.clock[1] - each.ended
    off = max(early, late, 0.0)
    if off < 1.0:
        return Cell("clock", host, "ok", "right")
    text = f"{off:.0f} s {'slow' if early > late else 'fast'}"
    do = f"the clock of {host} is {text}: files look newer or older than they are; chronyc makestep, or start its NTP"
    return Cell("clock", host, "bad" if off > CLOCKS else "warn", text, do)
