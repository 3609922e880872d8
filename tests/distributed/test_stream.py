"""Streams on two real ranks: equal steps, each item once, and errors that all raise with the guilty rank's name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.launching import JOBS, Launch, run
from tests.failures import documented

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]


@pytest.fixture
def seen(once: Callable) -> list[dict]:
    """What each rank saw."""

    def launched(folder: Path) -> Path:
        done = run(Launch("gloo", 2).command(JOBS / "stream.py", folder), timeout=200)
        assert done.returncode == 0, done.stderr[-4000:]
        return folder

    folder = once("stream", launched)
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def test_every_item_is_trained_on_once_by_one_rank(seen: list[dict]) -> None:
    for rank in seen:
        assert rank["equal"]["history"] == {"loss": [11.0, 11.0], "val_loss": [2.0, 2.0]}  # means of 0-22 and of 0-4
        assert (rank["equal"]["steps"], rank["equal"]["samples"]) == (3, 23)
    extra = seen[1]["mapped"].pop(0)  # the first item, which shows rank 1 what all are like
    assert extra == 0
    assert sorted(seen[0]["mapped"] + seen[1]["mapped"]) == sorted(2 * list(range(23)))


def test_a_training_that_goes_on_maps_only_what_comes(seen: list[dict]) -> None:
    for rank in seen:
        assert rank["left"] == "DistLoaderError: left"
        assert rank["gone on"]["history"]["loss"] == [37.0]
        assert rank["mapped after going on"].pop(0) == 0
    assert sorted(seen[0]["mapped after going on"] + seen[1]["mapped after going on"]) == list(range(3 * 8, 75))


def test_a_shorter_stream_on_one_rank_ends_the_epoch_on_all(seen: list[dict]) -> None:
    trained = [*range(9), *range(100, 112)]
    for rank in seen:
        assert rank["sharded"]["history"]["loss"] == pytest.approx([sum(trained) / len(trained)])
        assert (rank["sharded"]["steps"], rank["sharded"]["samples"]) == (3, 21)


def test_epochs_are_cut_out_of_one_stream(seen: list[dict]) -> None:
    for rank in seen:
        assert rank["cut"]["history"]["loss"] == [11.5, 35.5, 59.5]


def test_a_training_that_stops_early_leaves_the_ranks_in_step(seen: list[dict]) -> None:
    for rank in seen:
        assert len(rank["stopped"]["history"]["loss"]) == 1
        assert rank["after"]["history"]["loss"] == [3.5]


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("different", "the stream of rank 1 is not that of rank 0"),
        ("raises", "StreamError: rank 1: item 30 of the stream: ValueError: the disk is gone"),
        ("blocks", "rank 1: nothing within 1 s: still waiting for item 12 of the stream"),
        ("empty", "rank 1: its stream has no items in epoch 0"),
    ],
)
def test_what_goes_wrong_on_one_rank_is_raised_by_all_with_its_name(case: str, text: str, seen: list[dict]) -> None:
    for rank in seen:
        assert text in rank[case]
        assert documented(rank[case])


def test_predictions_are_in_the_streams_order_on_rank_0(seen: list[dict]) -> None:
    assert seen[0]["predicted"] == [11, 1]
    assert seen[1]["predicted"] is None
