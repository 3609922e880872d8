"""The same numbers as one process, on any number of ranks and replicas.

Stock Horovod fails all of this on Keras 3: `hvd.DistributedOptimizer` overrides `_compute_gradients` and
`_aggregate_gradients`, which Keras 3 never calls, so that nothing is averaged and the ranks drift apart from the first
step, without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.distributed.jobs.parity import CASES
from tests.distributed.launching import JOBS, Launch, run

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(900)]

STOCK = Launch("python", replicas=0)  # Keras itself, without strategy and without fill
# All cases on two ranks, and some on each other launch, chosen so that each kind of case meets several of them: every
# rank compiles every case, on the same cores, and under MirroredStrategy Keras makes new iterators for every pass.
FEW = ["one-sample-in-the-last-step", "fewer-samples-than-ranks"]
LAUNCHES = {
    Launch("python"): ["one-sample-in-the-last-step", "metrics", "slices-mean-over-weights", "batch-normalisation"],
    Launch("gloo", 2): list(CASES),
    Launch("gloo", 3): [*FEW, "slices-masks", "batch-normalisation"],
    Launch("gloo", 4): ["fewer-samples-than-ranks", "adam-global-clipnorm"],
    Launch("mpi", 2): ["embedding", "masks", "batch-normalisation"],
    Launch("python", 1, replicas=2): [
        "one-sample-in-the-last-step",
        "adam-global-clipnorm",
        "masks",
        "two-inputs-and-outputs",
        "slices-masks",
        "batch-normalisation",
        "overflow-on-one-rank",
    ],
    Launch("python", 1, replicas=3): ["clipnorm"],
    STOCK: list(CASES),
}
# Half precision rounds sums in another order otherwise; float32 does so in its last digits.
TOLERANCE = {"mixed-float16": 4e-3, "mixed-bfloat16": 3e-2, "overflow-on-one-rank": 4e-3}


@dataclass(frozen=True)
class Rank:
    """What one rank saved."""

    weights: dict[str, list[np.ndarray]]
    logs: dict[str, dict]


@pytest.fixture
def ranks(images: Path, once: Callable) -> Callable[[Launch], list[Rank]]:
    """The results of a launch, rank by rank."""

    def results(launch: Launch) -> list[Rank]:
        return once(str(launch), lambda folder: _train(launch, images, folder))

    return results


def _train(launch: Launch, images: Path, folder: Path) -> list[Rank]:
    job = launch.command(JOBS / "parity.py", images, folder, launch.replicas, *LAUNCHES[launch])
    done = run(job, timeout=800)
    assert done.returncode == 0, done.stderr[-4000:]
    return [_read(folder, rank) for rank in range(launch.ranks)]


def _read(folder: Path, rank: int) -> Rank:
    logs = json.loads((folder / f"rank-{rank}.json").read_text())
    arrays = np.load(folder / f"rank-{rank}.npz")
    weights = {name: [arrays[key] for key in arrays.files if key.split("/")[0] == name] for name in logs}
    return Rank(weights, logs)


def cases(least_ranks: int = 1) -> list:
    """Parameters of the tests below: every launch of at least so many ranks, with each of its cases."""
    return [
        pytest.param(launch, case, id=f"{launch}-{case}")
        for launch, its_cases in LAUNCHES.items()
        for case in its_cases
        if launch != STOCK and launch.ranks >= least_ranks
    ]


@pytest.mark.parametrize(("launch", "case"), cases())
def test_weights_equal_those_of_one_process(launch: Launch, case: str, ranks: Callable) -> None:
    stock = ranks(STOCK)[0].weights[case]
    for rank in ranks(launch):
        for ours, expected in zip(rank.weights[case], stock, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE.get(case, 1e-5))


@pytest.mark.parametrize(("launch", "case"), cases(least_ranks=2))
def test_all_ranks_hold_the_same_weights_to_the_bit(launch: Launch, case: str, ranks: Callable) -> None:
    first, *others = ranks(launch)
    for other in others:
        for ours, theirs in zip(other.weights[case], first.weights[case], strict=True):
            assert ours.tobytes() == theirs.tobytes()


@pytest.mark.parametrize(("launch", "case"), cases())
def test_losses_and_metrics_equal_those_of_one_process(launch: Launch, case: str, ranks: Callable) -> None:
    stock = ranks(STOCK)[0].logs[case]
    # Batch normalisation divides by what may be small, and so magnifies the last digits of the weights (2e-5 seen).
    usual = 1e-4 if case == "batch-normalisation" else 2e-6
    close = {"rtol": usual, "atol": usual} if case not in TOLERANCE else {"rtol": 0.05, "atol": 0.05}
    for rank in ranks(launch):
        logs = rank.logs[case]
        assert logs["history"].keys() == stock["history"].keys()
        for name, values in stock["history"].items():
            np.testing.assert_allclose(logs["history"][name], values, err_msg=name, **close)
        # Within an epoch, too: what callbacks see at the end of each step (Keras calls them once for several steps).
        assert len(logs["steps"]) == len(stock["steps"]) or case == "steps-per-execution"
        expected = {} if case == "steps-per-execution" else stock["steps"]
        for (_, ours), (_, theirs) in zip(logs["steps"], expected, strict=bool(expected)):
            for name in theirs if case not in TOLERANCE else ["loss"]:  # rounding to halves turns odd samples' classes
                np.testing.assert_allclose(ours[name], theirs[name], err_msg=name, **close)
        for name, value in stock["evaluate"].items():
            np.testing.assert_allclose(logs["evaluate"][name], value, err_msg=name, **close)


def test_the_cases_train_something(ranks: Callable) -> None:
    """All would be equal if nothing were trained."""
    logs = ranks(STOCK)[0].logs
    for case in CASES:
        losses = logs[case]["history"]["loss"]
        assert losses[-1] != losses[0], case
        assert np.isfinite(losses).all(), case
