"""Buckets: epochs in which the samples of a batch are of similar length, and nothing else is different."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.errors import ConfigError
from dist_loader.world import World

RNG = np.random.default_rng(5)


def of(rank: int, size: int) -> World:
    return World(rank=rank, size=size, local_rank=rank, local_size=size)


def tokens_of(lengths: list[int]) -> tuple:
    return np.arange(sum(lengths)), np.cumsum([0, *lengths])


def sequence(lengths: list[int], device_batch: int, rank: int = 0, size: int = 1, **options) -> dl.TokenSequence:
    return dl.TokenSequence(tokens_of(lengths), None, device_batch, 10**6, world=of(rank, size), **options)


def epoch_of(made: dl.TokenSequence, epoch: int) -> list[list[int]]:
    return [made.numbers(epoch, step).tolist() for step in range(len(made))]


def flat(lists: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=60),
    st.integers(1, 4),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(0, 3),
    st.booleans(),
)
def test_every_sample_once_on_every_number_of_ranks(
    lengths: list[int], world_size: int, device_batch: int, buckets: int, epoch: int, shuffle: bool
) -> None:
    options = {"buckets": buckets, "shuffle": shuffle, "seed": 3}
    ranks = [sequence(lengths, device_batch, rank, world_size, **options) for rank in range(world_size)]
    alone = sequence(lengths, device_batch * world_size, **options)
    assert len({len(one) for one in ranks} | {len(alone)}) == 1  # equal steps
    together = [flat(step) for step in zip(*(epoch_of(one, epoch) for one in ranks), strict=True)]
    assert together == epoch_of(alone, epoch)  # the same samples at every step
    seen = flat(together)
    assert sorted(seen[: len(lengths)]) == list(range(len(lengths)))
    assert seen[len(lengths) :] == (seen * device_batch * world_size)[: len(seen) - len(lengths)]  # the fill


def test_an_epoch_can_be_entered_anywhere() -> None:
    """The order at a step does not depend on what was asked for before."""
    lengths = RNG.integers(0, 50, 200).tolist()
    expected = epoch_of(sequence(lengths, 8, buckets=3), 4)
    for step in RNG.permutation(25).tolist():
        assert sequence(lengths, 8, buckets=3).numbers(4, step).tolist() == expected[step]


def test_batches_are_of_similar_length_and_still_shuffled() -> None:
    lengths = RNG.integers(1, 500, 1003)
    made, plain = sequence(lengths.tolist(), 8, buckets=20), sequence(lengths.tolist(), 8)

    def padding(one: dl.TokenSequence) -> float:
        padded = sum(lengths[step].max() * len(step) for step in map(np.array, epoch_of(one, 0)))
        return padded / lengths.sum() - 1

    assert padding(made) < padding(plain) / 8
    first, second = epoch_of(made, 0), epoch_of(made, 1)
    assert {*map(tuple, map(sorted, first))}.isdisjoint(map(tuple, map(sorted, second)))  # other batches
    longest = np.array([lengths[step].max() for step in first[:20]])
    assert 0 < (np.diff(longest) > 0).sum() < 19  # neither sorted up nor down
    at_place = np.array([lengths[step] for step in first[:120]])
    assert abs(at_place[:, 0].mean() - at_place[:, -1].mean()) < 5  # no rank has the longer ones


def test_a_pool_holds_the_samples_of_the_plain_epoch() -> None:
    lengths = RNG.integers(1, 50, 103).tolist()
    made, plain = epoch_of(sequence(lengths, 5, buckets=4), 2), epoch_of(sequence(lengths, 5), 2)
    for first in range(0, 20, 4):
        assert sorted(flat(made[first : first + 4])) == sorted(flat(plain[first : first + 4]))
    assert made[20][:3] == plain[20][:3]  # what fills no batch stays last


def test_without_shuffling_a_pool_goes_from_short_to_long() -> None:
    lengths = [5, 1, 4, 2, 3, 9, 8, 7, 6, 0, 0]
    assert epoch_of(sequence(lengths, 2, buckets=2, shuffle=False), 7) == [
        [1, 3],
        [0, 2],
        [4, 7],
        [5, 6],
        [8, 9],
        [10, 1],
    ]


@pytest.mark.parametrize(("remainder", "steps"), [("drop", 3), ("wrap", 4), ("weight", 4)])
def test_remainders_are_as_without(remainder: str, steps: int) -> None:
    lengths = RNG.integers(1, 9, 30).tolist()
    made = sequence(lengths, 4, 0, 2, buckets=2, remainder=remainder)
    assert len(made) == steps
    assert made.plan.weighted == (remainder == "weight")


def test_buckets_of_another_order() -> None:
    class Twice:
        draws, exactly_once, fingerprint = 40, False, "each twice"

        def samples(self, epoch: int, positions: np.ndarray) -> np.ndarray:
            return positions % 20

    lengths = RNG.integers(1, 9, 20).tolist()
    made = sequence(lengths, 4, buckets=3, order=Twice())
    assert sorted(flat(epoch_of(made, 0))) == sorted([*range(20)] * 2)
    assert not made.order.exactly_once
    assert "each twice" in made.order.fingerprint


def test_what_the_order_follows_from_is_in_its_fingerprint() -> None:
    lengths = RNG.integers(1, 90, 64).tolist()
    different = [{"buckets": 3}, {"buckets": 4}, {"buckets": 3, "maxlen": 40}, {"buckets": 3, "global_batch": 16}]
    assert len({sequence(lengths, 8, **options).order.fingerprint for options in different}) == 4
    same = [sequence(lengths, 8, 0, 1, buckets=3), sequence(lengths, 4, 1, 2, buckets=3)]
    assert len({one.order.fingerprint for one in same}) == 1


@pytest.mark.parametrize("buckets", [0, -1, 2.5, True, "3"])
def test_a_size_that_cannot_be(buckets: object) -> None:
    with pytest.raises(ConfigError, match="buckets must be a whole number of at least 1"):
        sequence([1, 2], 1, buckets=buckets)
