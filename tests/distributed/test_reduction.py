"""Gradients averaged over ranks: the same on all, whatever the groups, and within its precision if compressed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_loader.devices.averaging import grouped
from tests.distributed.jobs.reduction import SHAPES, WAYS, gradients, share
from tests.distributed.launching import JOBS, Launch, run

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(200)]

LAUNCHES = [Launch("gloo", 3), Launch("mpi", 2)]
ROUNDING = {"fp16": 2e-3, "bf16": 2e-2, "bf16, one group": 2e-2}


@pytest.mark.parametrize("launch", LAUNCHES, ids=str)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_means_over_the_ranks(launch: Launch, weighted: bool, way: str, once: Callable, tmp_path: Path) -> None:
    folder = once(f"reduction-{launch}", lambda folder: _ran(launch, folder))
    ranks = [np.load(folder / f"rank-{rank}.npz") for rank in range(launch.ranks)]
    shares = [share(rank) if weighted else 1.0 for rank in range(launch.ranks)]
    for at in range(len(SHAPES)):
        expected = sum(own * gradients(rank)[at] for rank, own in enumerate(shares)) / sum(shares)
        for rank in ranks:
            got = rank[f"{way}/{weighted}/{at}"]
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=0, atol=ROUNDING.get(way, 1e-6))
            assert got.tobytes() == ranks[0][f"{way}/{weighted}/{at}"].tobytes()
    for rank in ranks:  # what travels along is never rounded
        assert rank[f"{way}/{weighted}/rider"] == sum(range(1, launch.ranks + 1))


def _ran(launch: Launch, folder: Path) -> Path:
    done = run(launch.command(JOBS / "reduction.py", folder), timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@given(st.lists(st.integers(0, 1000), max_size=60), st.integers(1, 20))
def test_groups_are_neighbours_and_no_more_than_asked_for(sizes: list[int], groups: int) -> None:
    cut = grouped(sizes, groups)
    assert [at for group in cut for at in group] == list(range(len(sizes)))
    assert len(cut) <= groups
    assert all(len(group) for group in cut)


def test_groups_are_of_about_equal_sizes() -> None:
    assert grouped([1] * 12, 3) == [range(4), range(4, 8), range(8, 12)]
    assert grouped([1, 1, 1, 9], 2) == [range(3), range(3, 4)]
