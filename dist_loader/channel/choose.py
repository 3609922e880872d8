"""Which channel a process has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec

from dist_loader.channel.alone import Alone
from dist_loader.channel.channel import Channel
from dist_loader.errors import ConfigError
from dist_loader.world import World

# Open MPI 4; Open MPI 5 and srun --mpi=pmix; MPICH, Intel MPI, Cray and srun --mpi=pmi2.
_SET_FOR_MPI = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK")


def open_channel(world: World | None = None, env: Mapping[str, str] = os.environ) -> Channel:
    """The channel of a program that does not train: over MPI where a launcher for MPI started it, else over Horovod.

    Args:
        world: this process among all; by default, as the launcher's variables say.
        env: the environment to look into.

    Raises:
        ConfigError: there are other ranks, and no way to them.
    """
    world = World.detect(env) if world is None else world
    if world.size == 1:
        return Alone()
    if for_mpi(env) and find_spec("mpi4py") is not None:
        from dist_loader.channel.mpi import MpiChannel

        return MpiChannel(world)
    if find_spec("horovod") is None:
        raise ConfigError(
            f"{world.launcher} started {world.size} processes, and there is no way between them: install mpi4py "
            "(pip install mpi4py) and start them with mpirun"
        )
    from dist_loader.channel.horovod import HorovodChannel, started

    started()
    return HorovodChannel(world.rank, world.size)


def beside_horovod(world: World) -> Channel:
    """The channel of a training whose Horovod has been started: over MPI where Horovod runs on it, else over Horovod.

    All ranks agree on it, so that a rank without mpi4py does not wait for the others in another place.
    """
    if world.size == 1:
        return Alone()
    from dist_loader.channel.horovod import HorovodChannel, runs_on_mpi

    over_horovod = HorovodChannel(world.rank, world.size)
    if not runs_on_mpi():
        return over_horovod
    found = _mpi_channel(world)
    votes = over_horovod.allgather(b"\1" if found is not None else b"\0", "choosing a channel")
    return found if found is not None and all(vote == b"\1" for vote in votes) else over_horovod


def for_mpi(env: Mapping[str, str]) -> bool:
    """Whether this process was started by a launcher for MPI, and not by one that its own launcher was called by."""
    return "HOROVOD_RANK" not in env and any(name in env for name in _SET_FOR_MPI)


def _mpi_channel(world: World) -> Channel | None:
    """The channel over MPI; None if it cannot be."""
    if find_spec("mpi4py") is None:
        return None
    from dist_loader.channel.mpi import MpiChannel

    try:
        return MpiChannel(world)
    except (ConfigError, ImportError):  # another MPI than Horovod's, or one for a single thread only
        return None
