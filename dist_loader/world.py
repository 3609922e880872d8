"""Who this process is among all that train together: its rank, how many there are, and which of them share its host.

Everything is read from environment variables that the launcher sets, so finding out needs neither MPI nor Horovod,
and is a pure function of the environment.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class World:
    """One process among all that train together. May be built by hand, without any launcher.

    Attributes:
        rank: number of this process, 0 to size - 1.
        size: how many processes train together.
        local_rank: number of this process among those on its host, 0 to local_size - 1.
        local_size: how many of the processes are on this host.
        launcher: who started the processes: "horovodrun", "mpirun" (Open MPI), "mpiexec" (MPICH, Intel MPI, Cray),
            "srun" or "none". A label for people: nothing depends on it, and two worlds that differ in it are equal.

    Raises:
        ConfigError: a value is not an int, or the four values contradict each other.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    launcher: str = field(default="none", compare=False)

    def __post_init__(self) -> None:
        for name in ("rank", "size", "local_rank", "local_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ConfigError(f"{name} must be an int, got {value!r} in {self}")
        for needed, is_met in (
            ("size >= 1", self.size >= 1),
            ("0 <= rank < size", 0 <= self.rank < self.size),
            ("1 <= local_size <= size", 1 <= self.local_size <= self.size),
            ("0 <= local_rank < local_size", 0 <= self.local_rank < self.local_size),
        ):
            if not is_met:
                raise ConfigError(f"impossible {self}: it must hold that {needed}")

    @property
    def chief(self) -> bool:
        """Whether this process is rank 0, the one that writes checkpoints and talks to the terminal."""
        return self.rank == 0

    @classmethod
    def detect(cls, env: Mapping[str, str] = os.environ) -> World:
        """Finds this process's place from the variables that launchers set.

        The first of these that is present counts:

        1. `HOROVOD_RANK`, `HOROVOD_SIZE`, ...: horovodrun with Gloo. (Under MPI, horovodrun sets none of these.)
        2. `OMPI_COMM_WORLD_RANK`, ...: Open MPI's mpirun, also when horovodrun calls it.
        3. `PMI_RANK`, `PMI_SIZE` with `MPI_LOCALRANKID` or `PMI_LOCAL_RANK`: MPICH, Intel MPI, Cray.
        4. `SLURM_PROCID`, ...: a task started by srun. A launcher that runs inside of an srun task (1 to 3) wins,
           because Slurm's variables are still those of the task around it. A batch script or an interactive shell
           carries `SLURM_PROCID=0` and the job's task count too, but is one process: it counts as no launcher.

        With none of them, this is the only process. Where a launcher says nothing at all about the local rank, one
        host is assumed (local = global): older MPICH sets only the global pair, and is mostly used on one machine.

        Args:
            env: the environment to look into.

        Returns:
            The world, with its launcher named.

        Raises:
            ConfigError: a variable is missing its counterpart, is not a whole number or is impossible; or two launchers
                disagree, which happens when variables of an earlier launch are left in the environment.
        """
        launched = [family for family in (_horovod(env), _open_mpi(env), _mpich(env)) if family is not None]
        if launched:
            _require_agreement(launched)
            return replace(launched[0].world(), launcher=_who_started(launched, env))
        task = _slurm_task(env)
        return task.world() if task else cls(rank=0, size=1, local_rank=0, local_size=1)


@dataclass(frozen=True)
class _Family:
    """What one launcher's variables say: rank, size, local rank, local size, and the names they were read from."""

    launcher: str
    names: tuple[str, ...]
    values: tuple[int, int, int, int]

    def world(self) -> World:
        try:
            return World(*self.values, launcher=self.launcher)
        except ConfigError as error:
            raise ConfigError(f"{error}; it comes from {self}: {_fix(self.names)}") from None

    def __str__(self) -> str:
        # A family without local variables has two names, not four.
        return ", ".join(f"{name}={value}" for name, value in zip(self.names, self.values, strict=False))


def _who_started(launched: Sequence[_Family], env: Mapping[str, str]) -> str:
    """The launcher's name. Horovod's variables are also those that `dist-loader launch` gives to ranks of others."""
    if len(launched) > 1:
        return launched[1].launcher
    with contextlib.suppress(ConfigError):  # nonsense of a task around the launcher is no matter
        task = _slurm_task(env)
        if task is not None and task.values[:2] == launched[0].values[:2]:
            return task.launcher
    return launched[0].launcher


def _horovod(env: Mapping[str, str]) -> _Family | None:
    return _read_family(
        env, "horovodrun", ("HOROVOD_RANK", "HOROVOD_SIZE"), [("HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE")]
    )


def _open_mpi(env: Mapping[str, str]) -> _Family | None:
    return _read_family(
        env,
        "horovodrun" if _horovodrun_called_mpirun(env) else "mpirun",
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        [("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")],
    )


def _mpich(env: Mapping[str, str]) -> _Family | None:
    if _is_slurms_own_pmi(env):
        return None
    return _read_family(
        env,
        "mpiexec",
        ("PMI_RANK", "PMI_SIZE"),
        [("MPI_LOCALRANKID", "MPI_LOCALNRANKS"), ("PMI_LOCAL_RANK", "PMI_LOCAL_SIZE")],
    )


def _read_family(
    env: Mapping[str, str], launcher: str, pair: tuple[str, str], local_pairs: Sequence[tuple[str, str]]
) -> _Family | None:
    """What a launcher says that sets plain numbers; None if it sets neither rank nor size."""
    if not any(name in env for name in pair):
        return None
    rank, size = _read_pair(env, pair)
    for local_pair in local_pairs:
        if any(name in env for name in local_pair):
            return _Family(launcher, pair + local_pair, (rank, size, *_read_pair(env, local_pair)))
    return _Family(launcher, pair, (rank, size, rank, size))


def _horovodrun_called_mpirun(env: Mapping[str, str]) -> bool:
    """Whether Open MPI's mpirun was itself called by horovodrun.

    horovodrun leaves no variable of its own, but always calls mpirun with `--tag-output`, `-mca pml ob1` and the
    same network interfaces for Open MPI and NCCL (`horovod/runner/mpi_run.py`, 0.28.1). Nobody types all of it.
    """
    interfaces = env.get("OMPI_MCA_btl_tcp_if_include")
    return (
        env.get("OMPI_MCA_orte_tag_output") == "1"
        and env.get("OMPI_MCA_pml") == "ob1"
        and interfaces is not None
        and interfaces == env.get("NCCL_SOCKET_IFNAME")
    )


# Step numbers that Slurm gives to what is not an srun step: batch script, interactive shell, and the like (slurm.h).
_SLURM_SPECIAL_STEPS = 0xFFFFFFF0

# Of the step if Slurm says so, else of the job.
_SLURM_SIZES = ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_SLURM_TASKS_PER_NODE = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_NTASKS_PER_NODE")


def _slurm_task(env: Mapping[str, str]) -> _Family | None:
    """What Slurm says, if this process is a task that srun started."""
    if not _is_slurm_task(env):
        return None
    pair = ("SLURM_PROCID", _first_present(env, _SLURM_SIZES))
    local_pair = ("SLURM_LOCALID", _first_present(env, _SLURM_TASKS_PER_NODE))
    rank, size = _read_pair(env, pair)
    if not any(name in env for name in local_pair):
        return _Family("srun", pair, (rank, size, rank, size))
    _require_both(env, local_pair)
    local_rank, local_size = _read_int(env, local_pair[0]), _tasks_on_this_node(env, local_pair[1])
    return _Family("srun", pair + local_pair, (rank, size, local_rank, local_size))


def _is_slurm_task(env: Mapping[str, str]) -> bool:
    if "SLURM_PROCID" not in env:
        return False
    step = _first_present(env, ("SLURM_STEP_ID", "SLURM_STEPID"))
    if step in env and _read_int(env, step) < _SLURM_SPECIAL_STEPS:
        return True
    # Where the step number is hidden: batch scripts and interactive shells are always process 0.
    return _read_int(env, "SLURM_PROCID") > 0


def _tasks_on_this_node(env: Mapping[str, str], counts_name: str) -> int:
    """This node's entry in Slurm's list of tasks per node: "2(x3),1" is 2, 2, 2, 1."""
    runs: list[tuple[int, int]] = []
    for entry in env[counts_name].split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", entry.strip(), flags=re.ASCII)
        if match is None:
            raise ConfigError(f'{counts_name}={env[counts_name]!r} is not a list of tasks per node like "2(x3),1"')
        runs.append((int(match[1]), int(match[2] or 1)))
    if len({tasks for tasks, _ in runs}) == 1:
        return runs[0][0]
    if "SLURM_NODEID" not in env:
        raise ConfigError(f"{counts_name}={env[counts_name]!r} differs by node, but SLURM_NODEID is not set: use srun")
    node = first = _read_int(env, "SLURM_NODEID")
    for tasks, nodes in runs:
        if 0 <= first < nodes:
            return tasks
        first -= nodes
    raise ConfigError(f"SLURM_NODEID={node} is not one of the nodes in {counts_name}={env[counts_name]!r}")


def _is_slurms_own_pmi(env: Mapping[str, str]) -> bool:
    """Whether the PMI variables were set by srun itself (`--mpi=pmi2`), and not by an mpiexec inside of its task.

    srun then says the same twice, and gives the local rank only in its own variables. A launcher started inside of
    such a task must win over both.
    """
    return (
        _is_slurm_task(env)
        and env.get("PMI_RANK") == env.get("SLURM_PROCID")
        and env.get("PMI_SIZE") == env.get(_first_present(env, _SLURM_SIZES))
        and not any(name in env for name in ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"))
    )


def _require_agreement(families: Sequence[_Family]) -> None:
    first = families[0]
    for other in families[1:]:
        if other.values[:2] != first.values[:2]:
            raise ConfigError(
                f"two launchers disagree on who this process is: {first} but {other}; "
                f"unset the variables left over from an earlier launch, or do not start one launcher inside the other"
            )


def _read_pair(env: Mapping[str, str], pair: tuple[str, str]) -> tuple[int, int]:
    _require_both(env, pair)
    return _read_int(env, pair[0]), _read_int(env, pair[1])


def _read_int(env: Mapping[str, str], name: str) -> int:
    if re.fullmatch(r"-?[0-9]{1,18}", env[name], flags=re.ASCII) is None:
        raise ConfigError(f"{name}={env[name]!r} is not a whole number: {_fix([name])}")
    return int(env[name])


def _require_both(env: Mapping[str, str], pair: tuple[str, str]) -> None:
    for present, missing in (pair, pair[::-1]):
        if missing not in env:
            raise ConfigError(f"{present}={env[present]!r} is set but {missing} is not: {_fix([present])}")


def _fix(names: Sequence[str]) -> str:
    return f"start through horovodrun, mpirun or srun, or for a single process unset {' '.join(names)}"


def _first_present(env: Mapping[str, str], names: Sequence[str]) -> str:
    """The first name that is set, or the first of all if none is."""
    return next((name for name in names if name in env), names[0])
