"""Drills: trainings that are killed, ended by signals, and started again by the same command."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dist_loader.training.checkpoint import journal
from tests.distributed.launching import JOBS, Launch, environment, run
from tests.failures import documented

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

STEPS, EPOCHS = 5, 3


def started(launch: Launch, images: Path, folder: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(launch.command(JOBS / "resume.py", images, folder), timeout=150, env=environment(**settings))


@pytest.fixture
def uninterrupted(images: Path, once: Callable) -> Callable[..., Path]:
    """Where a training left its results that nothing interrupted."""

    def made(launch: Launch, **settings: str) -> Path:
        def train(folder: Path) -> Path:
            done = started(launch, images, folder, **settings)
            assert done.returncode == 0, done.stderr[-3000:]
            return folder

        return once(f"uninterrupted-{launch}-{'-'.join(settings)}", train)

    return made


def assert_every_step_is_committed_once(folder: Path) -> None:
    lines = journal.read(folder / "checkpoints")
    steps = [(line["epoch"], line["first"] + more) for line in lines for more in range(line["steps"])]
    assert steps == [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]


def assert_equal_to_the_bit(folder: Path, expected: Path, ranks: int) -> None:
    """Weights, optimizer, history, rate, and on rank 0 what the random generators gave."""
    for rank in range(ranks):
        ours, theirs = np.load(folder / f"rank-{rank}.npz"), np.load(expected / f"rank-{rank}.npz")
        assert len(ours.files) > 10
        for name in theirs:
            assert ours[name].tobytes() == theirs[name].tobytes()
        seen, wanted = (json.loads((place / f"rank-{rank}.json").read_text()) for place in (folder, expected))
        for name in set(wanted) - ({"drawn"} if rank else set()):
            assert seen[name] == wanted[name], name


@pytest.mark.parametrize(
    ("launch", "ends"),
    [
        (Launch("python"), {"0:8:SIGKILL": 137, "0:v10:SIGINT": 130}),
        (Launch("mpi", 2), {"1:4:SIGTERM": 143, "1:13:SIGKILL": 137}),
        (Launch("gloo", 3), {"2:8:SIGKILL": 1}),  # horovodrun makes 1 of every code
    ],
    ids=str,
)
def test_what_was_broken_off_ends_as_if_nothing_had_happened(
    launch: Launch, ends: dict[str, int], images: Path, tmp_path: Path, uninterrupted: Callable
) -> None:
    for end, code in ends.items():
        done = started(launch, images, tmp_path, END=end)
        assert abs(done.returncode) in (code, code - 128), (end, done.stdout[-500:], done.stderr[-3000:])
        if "SIGKILL" not in end:
            name = end.rpartition(":")[2]
            assert done.stdout.count(f"ended by {name} at epoch ") == 1
            assert documented(done.stdout)
        assert not (tmp_path / "rank-0.json").exists()
    again = started(launch, images, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("going on from the checkpoint at epoch ") == 1
    assert_every_step_is_committed_once(tmp_path)
    assert_equal_to_the_bit(tmp_path, uninterrupted(launch), launch.ranks)


def test_a_job_that_launch_starts_again(images: Path, tmp_path: Path, uninterrupted: Callable) -> None:
    launch = [sys.executable, "-m", "dist_loader", "launch", "-np", "2", "--with", "mpirun", "--oversubscribe"]
    command = [*launch, "--restarts", "1", str(JOBS / "resume.py"), str(images), str(tmp_path)]
    done = run(command, env=environment(END="1:8:SIGKILL"), timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rank 1" in done.stderr
    assert "starting again" in done.stderr
    assert_every_step_is_committed_once(tmp_path)
    assert_equal_to_the_bit(tmp_path, uninterrupted(Launch("mpi", 2)), 2)


def test_on_another_number_of_ranks(images: Path, tmp_path: Path, uninterrupted: Callable) -> None:
    """In the middle of epochs, from 2 ranks to 3 to 1; the global batch stays."""
    for launch, end in ((Launch("mpi", 2), "1:3:SIGTERM"), (Launch("mpi", 3), "2:8:SIGTERM"), (Launch("python"), "")):
        done = started(launch, images, tmp_path, END=end, PLAIN="1")
        assert done.returncode == (143 if end else 0), done.stderr[-3000:]
    assert_every_step_is_committed_once(tmp_path)
    assert {line["world_size"] for line in journal.read(tmp_path / "checkpoints")} == {1, 2, 3}
    expected = uninterrupted(Launch("python"), PLAIN="1")
    ours, theirs = np.load(tmp_path / "rank-0.npz"), np.load(expected / "rank-0.npz")
    for name in theirs:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5)
    seen, wanted = (json.loads((folder / "rank-0.json").read_text())["history"] for folder in (tmp_path, expected))
    for name, values in wanted.items():
        np.testing.assert_allclose(seen[name], values, rtol=0, atol=1e-5, err_msg=name)


@contextlib.contextmanager
def running(
    launch: Launch, images: Path, folder: Path, line: str = "epoch 3/", **settings: str
) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A job that trains for long, once it has printed a line, and its folder for temporary files."""
    with tempfile.TemporaryDirectory(prefix="dist_loader-test-") as scratch:
        process = subprocess.Popen(
            launch.command(JOBS / "resume.py", images, folder),
            env={**environment(EPOCHS="1000", **settings), "TMPDIR": scratch},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            assert any(line in said for said in process.stdout)
            yield process, Path(scratch)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()


def ranks_of(folder: Path) -> list[str]:
    """Processes of a job that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes():
                found.append(process.name)
    return found


def shared_memory_of(folder: Path) -> set[str]:
    """Files of shared memory that a job's processes use."""
    found: set[str] = set()
    for process in ranks_of(folder):
        with contextlib.suppress(OSError):
            found.update(re.findall(r"/dev/shm/\S+", Path(f"/proc/{process}/maps").read_text()))
    return found


def nothing_left(folder: Path) -> bool:
    deadline = time.monotonic() + 20
    while ranks_of(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not ranks_of(folder)


@pytest.mark.parametrize("launch", [Launch("gloo", 2), Launch("mpi", 2)], ids=str)
def test_sigterm_to_the_launcher_ends_all_in_good_order(launch: Launch, images: Path, tmp_path: Path) -> None:
    with running(launch, images, tmp_path) as (process, scratch):
        shared_memory = shared_memory_of(tmp_path)
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        code = process.wait(30)
        assert nothing_left(tmp_path)
        assert code == 1  # what mpirun and horovodrun say when they were told to end
        assert said.count("ended by SIGTERM at epoch ") == 1
        assert list(scratch.iterdir()) == []
    assert not [name for name in shared_memory if Path(name).exists()]
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_second_signal_ends_at_once(images: Path, tmp_path: Path) -> None:
    """Also one that sleeps in a callback; without a second one, the grace period ends it."""
    for grace in ("60", "1"):
        settings = {"SLEEP": "30", "GRACE": grace}
        with running(Launch("python"), images, tmp_path / grace, "asleep", **settings) as (process, scratch):
            process.send_signal(signal.SIGINT)
            if grace == "60":
                time.sleep(1)
                assert process.poll() is None
                process.send_signal(signal.SIGINT)
            asked = time.monotonic()
            said = process.stdout.read()
            assert process.wait(30) == 130
            assert time.monotonic() - asked < 15
            assert "ending at once" in said
            assert documented(said)
            assert list(scratch.iterdir()) == []


def test_a_checkpoint_of_another_training_is_refused_on_all_ranks(images: Path, tmp_path: Path) -> None:
    assert started(Launch("python"), images, tmp_path, EPOCHS="1").returncode == 0
    for settings, word in (({"SEED": "8"}, "seed 0, this training 8"), ({"PLAIN": "1"}, "does not fit this model")):
        done = started(Launch("mpi", 2), images, tmp_path, **settings)
        assert done.returncode != 0
        assert done.stderr.count(word) >= 2
        assert documented(done.stderr)
        assert "ConfigError" in done.stderr
