"""`dist-loader launch` with the real launchers, on one host and on two."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.distributed.launching import JOBS, environment
from tests.failures import documented
from tests.launching.jobs import Ended, Job

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(170)]

ARGUMENTS = ["a b", "'\"", "", "--", "-np", "9", ":", "x\ny", "$HOME", "--dry-run", "*"]
LAUNCHERS = ["mpirun", "horovodrun"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs = []

    def job(launcher: str, *arguments: str, options: tuple[str, ...] = ()) -> Job:
        command = ["launch", "-np", "2", "--oversubscribe", "--with", launcher, *options]
        jobs.append(Job([*command, str(JOBS / "launched.py"), *arguments], environment(), tmp_path))
        return jobs[-1]

    yield job
    for each in jobs:
        each.end()


def said(out: str) -> list[list[str]]:
    """What the ranks printed, without the launchers' tags."""
    return [json.loads(line) for line in re.findall(r"\[\"rank .*\]", out)]


def gone(ended: Ended, seconds: float = 30) -> list[str]:
    """What is left of a job after some time."""
    deadline = time.monotonic() + seconds
    while ended.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    return ended.left()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_fails_and_the_job_goes_on(start: Callable[..., Job], launcher: str) -> None:
    """Arguments, exit code, name and restart in one launch, for each costs seconds."""
    restarts = ("--restarts", "1") if launcher == "mpirun" else ()
    ended = start(launcher, "once", *ARGUMENTS, options=restarts).wait()
    assert "rank 1 on " in ended.err
    assert " ended with exit code 7 after " in ended.err
    assert documented(ended.err)
    assert (ended.code, ended.left()) == (0 if restarts else 7, [])
    lines = said(ended.out)
    assert {tuple(line[3:]) for line in lines} == {tuple(ARGUMENTS)}
    starts = {(line[0], line[1]) for line in lines}
    assert starts == {(f"rank {n} of 2", f"start {k}") for n in (0, 1) for k in range(2 if restarts else 1)}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sigterm_ends_the_job_and_leaves_nothing(start: Callable[..., Job], launcher: str) -> None:
    job = start(launcher, "saves")
    job.wait_for("ready", times=2)
    job.send(signal.SIGTERM)
    ended = job.wait()
    assert (ended.code, ended.left()) == (143, [])
    assert documented(ended.err)
    assert {"saved 0", "saved 1"} <= set(re.findall(r"saved \d", ended.out))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_nothing_is_left_of_a_killed_launcher(start: Callable[..., Job], launcher: str) -> None:
    job = start(launcher, "sleeps")
    job.wait_for("ready", times=2)
    job.send(signal.SIGKILL)
    assert gone(job.wait()) == []


MEETS = """
import horovod.tensorflow as hvd, tensorflow as tf
hvd.init()
print("together", int(hvd.allreduce(tf.constant(hvd.rank() + 1), op=hvd.Sum)), hvd.mpi_enabled(), hvd.local_size())
"""


def test_ranks_of_mpirun_meet_by_gloo(tmp_path: Path) -> None:
    """As those of srun and of an MPICH do, whatever MPI Horovod was built with."""
    (tmp_path / "meets.py").write_text(MEETS)
    command = ["launch", "-np", "2", "--oversubscribe", "--with", "mpirun", "--gloo", "meets.py"]
    job = Job(command, environment(), tmp_path)
    try:
        ended = job.wait()
    finally:
        job.end()
    assert (ended.code, ended.left()) == (0, []), ended.err
    assert ended.out.count("together 3 False 2") == 2
