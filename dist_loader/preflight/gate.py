"""What `dist-loader launch` has to pass before it starts a job."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.preflight import ask
from dist_loader.preflight.cells import Cell
from dist_loader.preflight.compare import compare, this_machine
from dist_loader.preflight.examine import Subject, add_one_number, has_horovod, spread
from dist_loader.preflight.host import quick
from dist_loader.preflight.table import advice, table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dist_loader.launching.hosts import Host
    from dist_loader.launching.probe import Answer
    from dist_loader.launching.signals import Signals
    from dist_loader.launching.starter import Starter
    from dist_loader.preflight.compare import Heard


class Gate:
    """Looks at the hosts of one job, once.

    Args:
        starter: the launcher.
        hosts: all of the job.
        away: names of those that are other machines.
        asked: those of them that may be asked over ssh.
        say: tells the user one line.
    """

    def __init__(
        self,
        starter: Starter,
        hosts: Sequence[Host],
        away: Sequence[str],
        asked: Sequence[str],
        say: Callable[[str], None],
    ) -> None:
        script, data = starter.request.script[0], starter.request.check_data
        here = tuple(host.name for host in hosts if host.name not in away)
        self._subject = Subject(starter, here, script if script.endswith(".py") else None, data)
        self._several = bool(away)
        self._asked = asked
        self._names = [host.name for host in hosts]
        self._heard: Mapping[str, Heard] = {}
        self._say = say

    def answers(self) -> dict[str, Answer]:
        """Ask the hosts: what they are asked anyway, and at the same time all that is compared."""
        starter, here, wanted = self._subject.starter, self._subject.here, self._subject.wanted()
        if starter.launcher == "srun" and self._several:
            self._heard = ask.ask_nodes(starter.program, self._names, wanted, starter.env)
            return {}
        if not self._asked:
            return {}
        self._heard = ask.ask_facts(self._names, here, wanted, starter.env)
        found = ask.answers(self._heard, here)
        answered = any(each.facts is not None for each in self._heard.values())
        if answered and any(answer.problem for answer in found.values()):
            self._show(compare(self._heard, self._subject.plan({})))
        return found

    def check(self, hosts: Sequence[Host], ranks: int, interfaces: Sequence[str], signals: Signals) -> int | None:
        """Let a job pass, or not.

        Returns:
            The number of a signal that came meanwhile; None: it may start.

        Raises:
            ConfigError: it cannot run like this. The table was shown.
        """
        plan = self._subject.plan(spread(hosts, ranks))
        if self._heard:
            cells = compare(self._heard, plan)
        else:
            cells = this_machine({name: quick() for name in self._subject.here}, plan)
        tried = None
        well = not any(cell.level == "bad" for cell in cells)
        if well and self._several and plan.launcher != "local" and has_horovod(self._heard):
            cell, tried = add_one_number(self._subject, hosts, ranks, interfaces, signals)
            if tried.stopped_by is not None:
                return tried.stopped_by
            cells.append(cell)
        bad = advice(cells, "bad")
        if bad:
            self._show(cells)
        for line in advice(cells, "warn"):
            self._say(f"warning: {line}")
        if not bad:
            return None
        for line in tried.wrote if tried is not None else ():
            print(f"  {line}", file=sys.stderr)
        for line in bad[:-1]:
            self._say(f"error: {line}")
        raise ConfigError(f"{bad[-1]}; --no-preflight starts all the same")

    def _show(self, cells: Sequence[Cell]) -> None:
        if self._several:  # for one machine, the error says it all
            print(table(cells, color=sys.stderr.isatty()), end="", file=sys.stderr, flush=True)
