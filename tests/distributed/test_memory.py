"""`device_batch="auto"`: found, agreed on, halved when a device runs out of memory, and always the same training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.launching import JOBS, Launch, environment, run
from tests.failures import documented

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]


def trained(launch: Launch, images: Path, folder: Path, case: str, limits: str, replicas: int = 1) -> str:
    """Train with limited memory; what the job said."""
    command = launch.command(JOBS / "memory.py", images, folder, case, replicas)
    done = run(command, timeout=400, env=environment(LIMITS=limits, XDG_CACHE_HOME=str(folder / "cache")))
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def seen(folder: Path, rank: int) -> dict:
    return json.loads((folder / f"rank-{rank}.json").read_text())


def assert_the_same_training(folder: Path, ranks: int, whole: Path) -> None:
    """As one process that had memory for the whole global batch."""
    expected = np.load(whole / "rank-0.npz")
    for rank in range(ranks):
        for name, ours in np.load(folder / f"rank-{rank}.npz").items():
            np.testing.assert_allclose(ours, expected[name], rtol=0, atol=1e-6)
        for part in ("history", "steps"):
            logs, whole_logs = seen(folder, rank)[part], seen(whole, 0)[part]
            logs, whole_logs = ([part] if isinstance(part, dict) else part for part in (logs, whole_logs))
            assert len(logs) == len(whole_logs)
            for ours, theirs in zip(logs, whole_logs, strict=True):
                assert "loss" in ours
                for name, value in ours.items():
                    np.testing.assert_allclose(value, theirs[name], rtol=2e-6, atol=2e-6, err_msg=name)


@pytest.fixture
def whole(images: Path, once: Callable) -> Callable[[str], Path]:
    """Where one process with memory for everything left its training of a case."""

    def made(case: str) -> Path:
        def train(folder: Path) -> Path:
            trained(Launch("python"), images, folder, case, "", replicas=0)
            return folder

        return once(f"memory-{case}", train)

    return made


def test_the_largest_slice_that_fits_every_rank_is_found_and_remembered(
    images: Path, tmp_path: Path, whole: Callable
) -> None:
    said = trained(Launch("gloo", 2), images, tmp_path, "sgd", "6;3")
    assert "3 samples at once, in 2 slices (tried)" in said
    assert [seen(tmp_path, rank)["device_batch"] for rank in range(2)] == [3, 3]
    assert_the_same_training(tmp_path, 2, whole("sgd"))
    again = trained(Launch("gloo", 2), images, tmp_path, "sgd", "6;3")
    assert "3 samples at once, in 2 slices (remembered" in again


@pytest.mark.parametrize(
    ("launch", "case", "limits", "left"),
    [
        (Launch("gloo", 2), "sgd", "6;6,4", 3),
        (Launch("mpi", 3), "slices-masks", "4;4,3;4,3", 2),
    ],
    ids=str,
)
def test_running_out_of_memory_later_halves_the_slices_of_all_ranks(
    launch: Launch, case: str, limits: str, left: int, images: Path, tmp_path: Path, whole: Callable
) -> None:
    said = trained(launch, images, tmp_path, case, limits)
    assert "ran out of memory" in said
    for rank in range(launch.ranks):
        after = seen(tmp_path, rank)
        assert (after["device_batch"], after["global_batch"], after["updates"]) == (left, 12, 10)
    assert_the_same_training(tmp_path, launch.ranks, whole(case))


def test_running_out_in_the_first_step_counts_nothing_twice(images: Path, tmp_path: Path, whole: Callable) -> None:
    trained(Launch("python"), images, tmp_path, "metrics", "12")  # to be remembered, and found too much
    said = trained(Launch("python"), images, tmp_path, "metrics", "7")
    assert "the device ran out of memory with 12 samples at once" in said
    assert_the_same_training(tmp_path, 1, whole("metrics"))


def test_replicas_that_run_out_of_memory_go_on_in_smaller_slices(images: Path, tmp_path: Path, whole: Callable) -> None:
    said = trained(Launch("python"), images, tmp_path, "sgd", "6,4", replicas=2)
    assert "the device ran out of memory with 6 samples at once" in said
    assert seen(tmp_path, 0)["device_batch"] == 3
    assert_the_same_training(tmp_path, 1, whole("sgd"))


def test_a_device_with_no_memory_for_one_sample_is_an_error(images: Path, tmp_path: Path) -> None:
    command = Launch("python").command(JOBS / "memory.py", images, tmp_path, "sgd", 1)
    done = run(command, timeout=200, env=environment(LIMITS="0", XDG_CACHE_HOME=str(tmp_path)))
    assert done.returncode == 1
    assert "not even one sample fits" in done.stderr
    assert documented(done.stderr)
