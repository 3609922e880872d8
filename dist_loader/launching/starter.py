"""Which command starts something on a job's ranks: the job itself, or a trial before it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_loader.launching.choose import Request, choose_launcher, meets_by_gloo, which_mpi
from dist_loader.launching.commands import Job, command, exported
from dist_loader.launching.messages import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.launching.commands import Launcher, Mpi
    from dist_loader.launching.hosts import Host, Hosts

TOLD = (VARIABLE, "DIST_LOADER_RESTARTS")  # what each start tells its ranks


@dataclass(frozen=True)
class Starter:
    """A launcher and what it is told, whatever it starts.

    Attributes:
        request: the job as it was asked for.
        launcher: what starts the ranks.
        program: the launcher's path; empty for "local".
        mpi: whose mpirun is called; None if none.
        env: the environment.
        prefix: the folder of that MPI; empty if none is called.
    """

    request: Request
    launcher: Launcher
    program: str
    mpi: Mpi | None
    env: Mapping[str, str]
    prefix: str = ""

    @property
    def gloo(self) -> bool:
        """Whether this program tells the ranks where they meet; horovodrun does so by itself."""
        return meets_by_gloo(self.launcher, self.mpi, self.request.control)

    @property
    def meets_on(self) -> tuple[str, ...] | None:
        """For `rank_command`: the interfaces on which the ranks meet, if this program tells them where."""
        return self.request.interfaces if self.gloo else None

    @classmethod
    def chosen(cls, request: Request, hosts: Hosts, env: Mapping[str, str]) -> Starter:
        """The launcher for a job.

        Raises:
            ConfigError: it is not installed, or cannot do what was asked for.
        """
        launcher, program = choose_launcher(request, hosts, env)
        mpi, prefix = which_mpi(program, launcher, env)
        return cls(request, launcher, program, mpi, env, prefix)

    def command(
        self, what: Sequence[str], ranks: int, on: Sequence[Host], interfaces: Sequence[str], told: Sequence[str] = TOLD
    ) -> list[str]:
        """The arguments of the process to start.

        Args:
            what: each rank runs.
            ranks: how many.
            on: the hosts, with their slots.
            interfaces: names of the network interfaces to use.
            told: variables that will be in the environment besides what is there now.
        """
        return command(
            Job(
                launcher=self.launcher,
                program=self.program,
                mpi=self.mpi,
                ranks=ranks,
                hosts=tuple(on),
                rank_command=tuple(what),
                exported=exported({*self.env} - {*TOLD}, (*self.request.exports, *told)),
                interfaces=tuple(interfaces),
                oversubscribe=self.request.wish.oversubscribe,
                as_root=os.geteuid() == 0,
                options=self.request.options,
                gloo=self.gloo,
                prefix=self.prefix,
                cores=self.env.get("SLURM_CPUS_PER_TASK"),
            )
        )
