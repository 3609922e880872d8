"""Callbacks, compiling again, loading, predicting and refusals, on real ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.launching import JOBS, Launch, run

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(600)]

ALONE = Launch("python")
LAUNCHES = [Launch("gloo", 2), Launch("mpi", 3)]


@pytest.fixture(params=LAUNCHES, ids=str)
def launch(request: pytest.FixtureRequest) -> Launch:
    return request.param


@pytest.fixture
def folder(launch: Launch, images: Path, once: Callable) -> Path:
    """Where the ranks wrote what they saw."""
    return once(f"behaviour-{launch}", lambda folder: _ran(launch, images, folder))


def _ran(launch: Launch, images: Path, folder: Path) -> Path:
    done = run(launch.command(JOBS / "behaviour.py", images, folder), timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def ranks(folder: Path, launch: Launch) -> list[dict]:
    """What each rank saw."""
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(launch.ranks)]


def test_early_stopping_and_the_learning_rate_are_the_same_on_every_rank(launch: Launch, folder: Path) -> None:
    seen = ranks(folder, launch)
    for rank in seen:
        assert rank["early stopping"] == [0, 1]
        assert rank["history"] == seen[0]["history"]
        assert rank["learning rate"] == pytest.approx(0.025)
        assert rank["scheduled rates"] == pytest.approx([0.025, 0.0125, 0.00625])


def test_only_rank_0_writes(launch: Launch, folder: Path) -> None:
    for name in ("best-{}.keras", "log-{}.csv", "board-{}"):
        assert [(folder / name.format(rank)).exists() for rank in range(launch.ranks)] == [True] + [False] * (
            launch.ranks - 1
        )
    assert (folder / "notes.txt").read_text() == "0\n1\n"


def test_a_stop_on_one_rank_stops_all_after_the_same_step(launch: Launch, folder: Path) -> None:
    assert [rank["steps before the stop"] for rank in ranks(folder, launch)] == [3] * launch.ranks


def test_a_loss_that_is_not_a_number_on_one_rank_ends_all(launch: Launch, folder: Path) -> None:
    assert [rank["epochs with nan"] for rank in ranks(folder, launch)] == [1] * launch.ranks


def test_fitting_compiling_and_loading_again_keeps_the_ranks_equal(launch: Launch, folder: Path) -> None:
    seen = ranks(folder, launch)
    for rank in seen:
        assert rank["after fitting again"] == seen[0]["after fitting again"]
        assert rank["after loading"] == seen[0]["after loading"]
        assert rank["after loading"] != rank["after fitting again"]


def test_predictions_are_in_index_order_on_rank_0(launch: Launch, folder: Path) -> None:
    first, *others = ranks(folder, launch)
    assert first["predicted"] == [50, 3]
    assert first["prediction error"] < 1e-6
    assert [rank["predicted"] for rank in others] == [None] * len(others)


def test_predictions_written_by_every_rank_cover_each_sample_once(launch: Launch, folder: Path) -> None:
    numbers = [np.load(folder / "outputs" / f"numbers-rank-{rank}.npy") for rank in range(launch.ranks)]
    outputs = [np.load(folder / "outputs" / f"outputs-rank-{rank}.npy") for rank in range(launch.ranks)]
    assert [len(part) for part in numbers] == [len(part) for part in outputs]
    assert sorted(np.concatenate(numbers).tolist()) == list(range(50))


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("unprepared", "strategy.fit(model, train"),
        ("backup", "checkpoint_dir"),
        ("unsummable", "'largest'"),
        ("multiworker", "horovodrun"),
    ],
)
def test_what_cannot_be_exact_is_refused(what: str, word: str, launch: Launch, folder: Path) -> None:
    for rank in ranks(folder, launch):
        assert word in rank[what]
