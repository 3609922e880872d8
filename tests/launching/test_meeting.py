"""Ranks that `launch` itself tells where they meet by Gloo."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_loader.launching.choose import meets_by_gloo
from dist_loader.launching.commands import Mpi
from dist_loader.launching.meeting import Store, places
from tests.launching.jobs import Job

SCRIPT = """
import json, os
print(json.dumps({name: value for name, value in os.environ.items() if name.startswith(("HOROVOD_", "NCCL_"))}))
"""


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_each_rank_is_told_what_horovodrun_tells_it(slots: list[int]) -> None:
    hosts = pytest.importorskip("horovod.runner.common.util.hosts")
    gloo_run = pytest.importorskip("horovod.runner.gloo_run")
    listed = ",".join(f"host{number}:{count}" for number, count in enumerate(slots))
    planned = hosts.get_host_assignments(hosts.parse_hosts(listed), sum(slots))
    told = places({slot.rank: slot.hostname for slot in planned})
    assert told == {slot.rank: gloo_run.create_slot_env_vars(slot) for slot in planned}


def test_it_is_where_the_ranks_can_leave_their_addresses() -> None:
    pytest.importorskip("horovod")
    store = Store(everywhere=False)
    try:
        store.expect(places({0: "a", 1: "b"}))
        url = f"http://127.0.0.1:{store.port}/global/0"
        urllib.request.urlopen(urllib.request.Request(url, b"here", method="PUT"), timeout=10).close()
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert answer.read() == b"here"
    finally:
        store.close()


def test_under_an_mpirun(programs: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    """Two ranks, whatever the launcher is: each knows its place and the way to the others."""
    pytest.importorskip("horovod")
    (tmp_path / "script.py").write_text(SCRIPT)
    options = ["-np", "2", "--oversubscribe", "--with", "mpirun", "--gloo"]
    job = Job(["launch", *options, "script.py"], programs(NCCL_SOCKET_IFNAME="mine"), tmp_path)
    try:
        ended = job.wait()
    finally:
        job.end()
    assert (ended.code, ended.left()) == (0, []), ended.err
    told = sorted((json.loads(line) for line in ended.out.splitlines()), key=lambda each: each["HOROVOD_RANK"])
    places_of_two = places({0: told[0]["HOROVOD_HOSTNAME"], 1: told[0]["HOROVOD_HOSTNAME"]})
    for rank, variables in enumerate(told):
        assert variables.items() >= places_of_two[rank].items()
        assert variables["HOROVOD_CONTROLLER"] == variables["HOROVOD_CPU_OPERATIONS"] == "gloo"
        assert variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] == "127.0.0.1"
        assert (variables["HOROVOD_GLOO_IFACE"], variables["NCCL_SOCKET_IFNAME"]) == ("lo", "mine")
    assert len({variables["HOROVOD_GLOO_RENDEZVOUS_PORT"] for variables in told}) == 1


@pytest.mark.parametrize(
    ("launcher", "mpi", "control", "answer"),
    [
        ("srun", None, None, True),
        ("srun", None, "mpi", False),
        ("mpirun", "Open MPI 4", None, False),
        ("mpirun", "Open MPI 5", "gloo", True),
        ("mpirun", "MPICH", None, True),
        ("mpirun", "MPICH", "mpi", False),
        ("gloo", None, "gloo", False),  # horovodrun does it
        ("local", None, None, False),
    ],
)
def test_where_it_is_done(launcher: str, mpi: Mpi | None, control: str | None, answer: bool) -> None:
    assert meets_by_gloo(launcher, mpi, control) == answer
