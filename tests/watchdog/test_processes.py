"""Processes that are watched, and that stop, die, sleep, fail or hang. No TensorFlow, and limits of seconds."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dist_loader.ending import ENDED_BY_ANOTHER

ROOT = Path(__file__).parents[2]
JOBS = {
    "calm": ["a 10 end", "a 6 compile", "b 12 end"],
    "sleeps": ["a 5 wait", "a 3 sleep", "a 5 wait"],
    "starves": ["a 5 wait", "a 5 starve"],
    "fails": ["a 5 follow", "a 5 raise", "b 5 wait"],
    "all-fail": ["a 5 raise", "a 8 raise"],
    "dies": ["a 15 wait", "a 15 exit"],
    "holds": ["a 15 wait", "a 15 hold"],
    "stops": ["a 15 wait", "a 15 wait"],
    "chief-stops": ["a 15 wait", "a 15 wait", "b 15 wait"],
    "chief-dies": ["a 15 wait", "a 15 wait", "a 15 wait"],
    "broken": ["a 40 end", "a 20 break", "a 40 end"],
    "chief-broken": ["a 20 break", "a 40 end", "a 40 end"],
    "freezes": ["a 25 end", "a 25 end"],
    "firewalled": ["a 50 end", "a 50 firewalled"],
}


class Job:
    """Ranks, and what became of them."""

    def __init__(self, folder: Path, ranks: int) -> None:
        self.folder = folder
        self.ranks = range(ranks)

    def read(self, name: str) -> str:
        """A file that is, or will be, there."""
        deadline = time.monotonic() + 30
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"{self.folder / name} has not come"
            time.sleep(0.01)
        return (self.folder / name).read_text()

    def signal(self, rank: int, number: int) -> None:
        """Send a signal to a rank that has taken some steps."""
        while int(self.read(f"step-{rank}")) < 12:
            time.sleep(0.01)
        os.kill(int(self.read(f"pid-{rank}")), number)

    def end(self, *ranks: int) -> tuple[list[int], list[str]]:
        """Exit codes and what was said on stderr, of some ranks or all."""
        chosen = ranks or self.ranks
        return [int(self.read(f"code-{rank}")) for rank in chosen], [self.read(f"stderr-{rank}") for rank in chosen]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Job]]:
    """A job of a name. All are started together, for they mostly wait."""
    folder = tmp_path_factory.mktemp("ranks")
    jobs = {name: Job(folder / name, len(orders)) for name, orders in JOBS.items()}
    command = [sys.executable, Path(__file__).parent / "ranks.py", folder, json.dumps(JOBS)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True) as process:
        try:
            for rank in (0, 1):
                jobs["freezes"].signal(rank, signal.SIGSTOP)
            jobs["stops"].signal(1, signal.SIGSTOP)
            jobs["chief-stops"].signal(0, signal.SIGSTOP)
            jobs["chief-dies"].signal(0, signal.SIGKILL)
            yield jobs.__getitem__
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_nothing_is_said_when_all_is_well(job: Callable[[str], Job]) -> None:
    calm = job("calm")
    port = json.loads(calm.read("meeting"))["port"]
    for bad in (b"GET / HTTP/1.1\r\n\r\n", b'{"kind": "hello", "rank": 1, "token": "guess"}\n', b"\x00" * 300_000):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as stranger:
            try:
                stranger.sendall(bad)
                assert stranger.recv(100) == b""
            except ConnectionError:
                pass
    assert calm.end() == ([0, 0, 0], ["", "", ""])
    assert [calm.read(f"rank-{rank}.log") for rank in range(3)] == ["", "", ""]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_a_rank_that_sleeps_is_named_and_leaves_its_stack(job: Callable[[str], Job]) -> None:
    codes, said = job("sleeps").end()
    assert codes == [ENDED_BY_ANOTHER] * 3
    assert "rank 1 on a is stuck at epoch 1, step 3: in callbacks (ranks.py:" in said[0]
    assert said[0].count("waiting for the other ranks in a step") == 2
    assert said[1:] == ["", ""]
    assert ", line " in job("sleeps").read("rank-1.log").partition("trains")[2]
    assert "in act" in job("sleeps").read("rank-1.log")
    assert all("rank 1 on a is stuck" in job("sleeps").read(f"rank-{rank}.log") for rank in range(3))


def test_a_rank_without_input_is_named_with_the_file(job: Callable[[str], Job]) -> None:
    codes, said = job("starves").end()
    assert codes == [ENDED_BY_ANOTHER] * 2
    assert "rank 1 on a is stuck at epoch 1, step 6: waiting for input: photos/slow.jpg for" in said[0]


def test_a_rank_that_fails_raises_its_own_error_and_the_others_end(job: Callable[[str], Job]) -> None:
    codes, said = job("fails").end()
    assert codes == [ENDED_BY_ANOTHER, 2, ENDED_BY_ANOTHER]
    assert "rank 1 on a failed at epoch 1, step 5: SampleError: cannot read 'x.jpg'; the job ends" in said[0]
    assert said[1:] == ["", ""]


def test_ranks_that_all_fail_raise_their_own_errors(job: Callable[[str], Job]) -> None:
    assert job("all-fail").end() == ([2, 2], ["", ""])


def test_a_rank_that_dies_is_named(job: Callable[[str], Job]) -> None:
    codes, said = job("dies").end()
    assert codes == [ENDED_BY_ANOTHER, 9]
    assert "rank 1 on a died, last heard at epoch 1" in said[0]


def test_a_stopped_rank_is_named_and_ends_when_it_goes_on(job: Callable[[str], Job]) -> None:
    codes, said = job("stops").end(0)
    assert codes == [ENDED_BY_ANOTHER]
    assert "rank 1 on a does not answer, last heard at epoch 1" in said[0]
    assert not (job("stops").folder / "code-1").exists()
    job("stops").signal(1, signal.SIGCONT)
    assert job("stops").end(1) == ([ENDED_BY_ANOTHER], [""])
    assert "rank 1 on a does not answer" in job("stops").read("rank-1.log")


def test_a_job_that_is_frozen_as_a_whole_goes_on(job: Callable[[str], Job]) -> None:
    """As when a machine sleeps, or a debugger or a container stops all: for longer than the limits."""
    time.sleep(max(0.0, (job("freezes").folder / "step-1").stat().st_mtime + 2.5 - time.time()))
    for rank in (1, 0):
        job("freezes").signal(rank, signal.SIGCONT)
    assert job("freezes").end() == ([0, 0], ["", ""])


def test_when_rank_0_stops_the_first_rank_of_another_host_speaks(job: Callable[[str], Job]) -> None:
    codes, said = job("chief-stops").end(1, 2)
    assert codes == [ENDED_BY_ANOTHER] * 2
    assert said[0] == ""
    assert "rank 0 on a does not answer" in said[1]
    assert len(said[1].splitlines()) == 5
    job("chief-stops").signal(0, signal.SIGCONT)
    assert job("chief-stops").end(0) == ([ENDED_BY_ANOTHER], [""])


def test_when_rank_0_dies_the_next_speaks(job: Callable[[str], Job]) -> None:
    codes, said = job("chief-dies").end()
    assert codes == [-signal.SIGKILL, ENDED_BY_ANOTHER, ENDED_BY_ANOTHER]
    assert "rank 0 on a died" in said[1]
    assert said[2] == ""
    assert "rank 0 on a died" in job("chief-dies").read("rank-2.log")


def test_a_rank_whose_python_stands_still_is_named_and_leaves_its_stack(job: Callable[[str], Job]) -> None:
    codes, said = job("holds").end()
    assert codes == [ENDED_BY_ANOTHER] * 2
    assert "rank 1 on a does not answer" in said[0]
    log = job("holds").read("rank-1.log")
    assert "in act" in log.partition("Stack (most recent call first):")[2].partition("ERROR")[0]


def test_a_rank_that_cannot_be_reached_is_named_and_trains_on(job: Callable[[str], Job]) -> None:
    codes, _ = job("firewalled").end()
    assert codes == [0, 0]
    assert "was not reached by rank 1" in job("firewalled").read("rank-0.log")
    assert "rank 1 cannot reach the watchdog of rank 0" in job("firewalled").read("rank-1.log")


@pytest.mark.parametrize("name", ["broken", "chief-broken"])
def test_a_fault_of_the_watchdog_ends_no_training(name: str, job: Callable[[str], Job]) -> None:
    assert job(name).end() == ([0, 0, 0], ["", "", ""])
    log = job(name).read("rank-1.log" if name == "broken" else "rank-0.log")
    assert "failed; the training goes on without it" in log
    assert "ZeroDivisionError" in log
