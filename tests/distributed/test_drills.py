"""Ranks that stop, sleep, die, or cannot read: the job ends in time, with the name of the rank, and leaves nothing.

The launches share the machine, for each mostly waits.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributed.launching import JOBS, Launch, run
from tests.failures import documented

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

GLOO, MPI = Launch("gloo", 2), Launch("mpi", 2)
LIMIT = 5
DIED, SILENT = "died, last heard at epoch 1, step 3:", "does not answer, last heard at epoch 1, step 3:"
DRILLS = [  # how it is launched, what happens, to which rank, which then is said to have done what
    (GLOO, "stop", 1, SILENT),
    (MPI, "stop", 1, SILENT),
    (GLOO, "kill", 0, DIED),
    (MPI, "kill", 1, DIED),
    (GLOO, "sleep", 1, "is stuck at epoch 1, step 3: in callbacks (drills.py:"),
    (GLOO, "loader fails", 1, "SampleError: rank 1: cannot read sample"),
    (MPI, "loader hangs", 1, "waiting for input: "),
]


@dataclass(frozen=True)
class Ran:
    """A job that has ended, and its folder."""

    done: subprocess.CompletedProcess[str]
    folder: Path
    seconds: float

    def log(self, rank: int) -> str:
        return (self.folder / f"rank-{rank}.log").read_text()

    def seen(self, rank: int) -> dict:
        assert self.done.returncode == 0, self.done.stderr[-4000:]
        return json.loads((self.folder / f"rank-{rank}.json").read_text())


@pytest.fixture(scope="module")
def ran(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Ran]]:
    """A job, by its launch and what happens in it."""

    def start(launch: Launch, job: str, *arguments: object) -> Ran:
        folder = tmp_path_factory.mktemp("drill")
        started = time.monotonic()
        done = run(launch.command(JOBS / job, images, folder, *arguments), timeout=150)
        return Ran(done, folder, time.monotonic() - started)

    with ThreadPoolExecutor(3) as pool:
        jobs: dict[tuple, Future[Ran]] = {}
        for launch, harm, rank, _ in DRILLS:
            jobs[launch, harm] = pool.submit(start, launch, "drills.py", harm, rank, LIMIT)
        for launch, what in ((MPI, "refused"), (GLOO, "slow")):
            jobs[launch, what] = pool.submit(start, launch, "refusals.py", what)
        yield lambda launch, what: jobs[launch, what].result()


@pytest.mark.parametrize(("launch", "harm", "rank", "words"), DRILLS, ids=lambda value: str(value)[:12])
def test_the_job_ends_with_the_name_of_the_rank(
    launch: Launch, harm: str, rank: int, words: str, ran: Callable[..., Ran]
) -> None:
    job = ran(launch, harm)
    assert job.done.returncode != 0
    said = [line for line in job.done.stderr.splitlines() if "dist_loader: " in line]
    assert len(said) == 1, job.done.stderr[-4000:]
    assert f"rank {rank} on " in said[0]
    assert words in said[0]
    assert said[0].endswith("; the job ends")
    assert documented(said[0])
    others = [other for other in range(launch.ranks) if other != rank]
    assert all(words in job.log(other) for other in others)
    left = [file.read_text() for file in job.folder.glob("*.pid") if runs(int(file.read_text()))]
    assert left == []


def test_a_rank_that_sleeps_leaves_its_stack(ran: Callable[..., Ran]) -> None:
    assert "drills.py" in ran(GLOO, "sleep").log(1)
    assert "in on_train_batch_end" in ran(GLOO, "sleep").log(1).partition("stacks of process")[2]


def test_the_table_says_what_the_other_rank_waits_for(ran: Callable[..., Ran]) -> None:
    for launch, what in ((GLOO, "sleep"), (MPI, "loader hangs")):
        assert ran(launch, what).done.stderr.count("waiting for the other ranks in a step") == 1


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("seed", "seed: 0 on rank 0, 7 on rank 1"),
        ("index", "samples: 60 on rank 0, 59 on rank 1"),
        ("batch", "global_batch: 8 on rank 0, 4 on rank 1"),
        ("auto", "device_batch: 4 on rank 0, auto on rank 1"),
        ("epochs", "epochs: 1 on rank 0, 2 on rank 1"),
        ("pixels", "8x8 grayscale, nearest, stretch, on_bad raise on rank 1"),
        ("validation", "validation_data: none on rank 0, 60 samples on rank 1"),
        ("shapes", "layer 3 units: 4 on rank 0, 5 on rank 1"),
        ("layers", "layer 3 activation: relu on rank 0, tanh on rank 1"),
        ("optimizer", "optimizer learning_rate: 0.2"),
        ("loss", "loss: sparse_categorical_crossentropy on rank 0, mean_squared_error on rank 1"),
        ("watchdog", "watchdog: 5.0 on rank 0, None on rank 1"),
        ("call", "call: Strategy.evaluate on rank 0, Strategy.fit on rank 1"),
        ("names", "no error"),
    ],
)
def test_ranks_that_would_train_different_jobs_refuse(what: str, words: str, ran: Callable[..., Ran]) -> None:
    for rank in range(MPI.ranks):
        assert words in ran(MPI, "refused").seen(rank)[what]
    assert what != "seed" or documented(ran(MPI, "refused").seen(0)[what])


def test_a_slow_rank_is_waited_for_and_nothing_is_left(ran: Callable[..., Ran]) -> None:
    """Longer than the limit in compiling, for less in reading and in callbacks; and called from a callback."""
    job = ran(GLOO, "slow")
    for rank in range(GLOO.ranks):
        seen = job.seen(rank)
        assert seen["epochs"] == [0, 1]
        assert len(seen["evaluated"]) == 2
        assert seen["threads"] == []
        assert seen["sockets"] <= 0
    assert "dist_loader: " not in job.done.stderr


def runs(process: int) -> bool:
    """Whether a process is there, and not only for its parent to ask how it ended."""
    try:
        os.kill(process, 0)
        return ") Z " not in Path(f"/proc/{process}/stat").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False
