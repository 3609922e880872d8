"""Which channel a process has, and what one that is alone does."""

from __future__ import annotations

import sys

import pytest

from dist_loader.channel import Alone, open_channel
from dist_loader.channel.channel import different, missing
from dist_loader.channel.choose import for_mpi
from dist_loader.channel.rendezvous import Arrivals
from dist_loader.devices.horovod import HorovodDevices
from dist_loader.errors import ChannelError, ConfigError, DistLoaderError
from dist_loader.world import World


@pytest.mark.parametrize(
    ("env", "over_mpi"),
    [
        ({}, False),
        ({"OMPI_COMM_WORLD_RANK": "0"}, True),
        ({"PMIX_RANK": "1", "SLURM_PROCID": "1"}, True),
        ({"PMI_RANK": "1"}, True),
        ({"SLURM_PROCID": "1"}, False),
        ({"HOROVOD_RANK": "0", "PMIX_RANK": "0"}, False),  # horovodrun --gloo, called within an srun
    ],
)
def test_mpi_is_for_those_that_a_launcher_for_mpi_started(env: dict[str, str], over_mpi: bool) -> None:
    assert for_mpi(env) is over_mpi


def test_one_process_is_alone() -> None:
    channel = open_channel(env={"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"})
    assert channel == Alone()
    assert channel.allgather(b"x", "it") == channel.gather(b"x", "it") == [b"x"]
    assert channel.broadcast(b"x", "it") == b"x"
    channel.barrier("it")


def test_without_any_way_the_user_is_told_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_loader.channel.choose.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="mpirun started 3 processes.* install mpi4py"):
        open_channel(World(1, 3, 1, 3, "mpirun"), {"OMPI_COMM_WORLD_RANK": "1"})


def test_mpi_before_tensorflow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mpi:
        get_vendor = staticmethod(lambda: ("Open MPI", (4, 1, 8)))

    import tensorflow  # noqa: F401

    before = dict(sys.modules)
    monkeypatch.setattr(sys, "modules", {"mpi4py.MPI": Mpi, **before})
    with pytest.raises(ConfigError, match=r"dist_loader.init\(\), before mpi4py"):
        HorovodDevices.started(World(0, 2, 0, 2))


def test_errors_name_the_ranks() -> None:
    error = missing([1, 2, 5], "the feast", 600.0, 0)
    assert isinstance(error, ChannelError) and isinstance(error, DistLoaderError) and isinstance(error, TimeoutError)
    assert error.ranks == (1, 2, 5)
    assert str(error).startswith("ranks 1-2, 5 did not come to the feast within 600 s (as rank 0 on ")
    assert "not known which" in str(missing([], "the feast", 1.0, 0))
    other = different(["allgather as call 3", "allgather as call 3", "barrier as call 2"], "the feast")
    assert other.ranks == (2,)
    assert "allgather as call 3 on rank 0 (the feast), barrier as call 2 on rank 2" in str(other)


def test_a_server_that_does_not_answer_is_no_reason_to_fail() -> None:
    assert Arrivals.of_environment(0, {}) is None
    arrivals = Arrivals.of_environment(
        0, {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": "1"}
    )
    assert arrivals is not None
    arrivals.note(1)
    assert arrivals.absent(1, 3) == []
