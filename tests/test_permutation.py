"""The order of an epoch: a bijection, any part of it alone, and as even as chance."""

import copy
import math
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_loader import permutation as module
from dist_loader.errors import ConfigError
from dist_loader.permutation import Permutation

SMALL = st.integers(1, 3000)
SEEDS = st.integers(-(2**80), 2**80)
EPOCHS = st.integers(0, 2**40)


class TestBijection:
    # 64 is the smallest domain, 4096 the block: the code takes other ways on the two sides of both.
    @pytest.mark.parametrize("n", [*range(1, 131), 1000, 4095, 4096, 4097, 10_007, 2**16 - 1, 2**16, 2**16 + 1])
    def test_every_sample_exactly_once(self, n):
        assert np.array_equal(np.sort(Permutation(n, seed=n, epoch=3)[:]), np.arange(n))

    @settings(max_examples=60, deadline=None)
    @given(n=SMALL, seed=SEEDS, epoch=EPOCHS)
    def test_every_sample_exactly_once_for_any_seed(self, n, seed, epoch):
        assert np.array_equal(np.sort(Permutation(n, seed, epoch)[:]), np.arange(n))

    @pytest.mark.parametrize("n", [2**31, 2**32 + 1, 10**11 + 3, 2**61 - 1, 2**62 - 1, 2**62])
    def test_huge_sets_stay_in_range_and_never_repeat(self, n):
        p = Permutation(n, seed=0, epoch=0)
        ends = np.concatenate([p[:5000], p[n // 2 : n // 2 + 5000], p[-5000:]])
        assert ends.min() >= 0
        assert ends.max() < n
        assert len(np.unique(ends)) == len(ends)
        # Spread over the whole range: the mean of 15,000 uniform numbers has a deviation of n / sqrt(12 * 15,000).
        assert abs(ends.astype(float).mean() / n - 0.5) < 6 / math.sqrt(12 * len(ends))

    def test_no_samples(self):
        p = Permutation(0, seed=0, epoch=0)
        assert len(p) == 0
        assert list(p) == []
        assert p[:].tolist() == []
        with pytest.raises(IndexError):
            p[0]

    def test_one_sample(self):
        assert Permutation(1, seed=5, epoch=5)[:].tolist() == [0]


class TestIndexing:
    @settings(max_examples=100, deadline=None)
    @given(n=SMALL, data=st.data())
    def test_any_slice_is_that_part_of_the_whole(self, n, data):
        p = Permutation(n, seed=1, epoch=2)
        part = data.draw(st.slices(n))
        assert np.array_equal(p[part], p[:][part])

    @settings(max_examples=100, deadline=None)
    @given(n=SMALL, data=st.data())
    def test_any_positions_of_any_shape(self, n, data):
        p = Permutation(n, seed=1, epoch=2)
        positions = np.array(data.draw(st.lists(st.integers(-n, n - 1), min_size=6, max_size=6))).reshape(3, 2)
        got = p[positions]
        assert got.dtype == np.int64
        assert got.shape == (3, 2)
        assert np.array_equal(got, p[:][positions])

    @pytest.mark.parametrize("dtype", ["i1", "u1", "i4", ">i8", "u8"])
    def test_any_integer_dtype(self, dtype):
        p = Permutation(1000, seed=0, epoch=0)
        positions = np.arange(0, 100, 7, dtype=dtype)
        assert np.array_equal(p[positions], p[0:100:7])
        assert positions.tolist() == list(range(0, 100, 7)), "the caller's array must not be written to"

    def test_single_positions_are_python_ints(self):
        p = Permutation(1000, seed=0, epoch=0)
        assert type(p[3]) is int
        assert p[3] == p[np.int32(3)] == p[:][3]
        assert p[-1] == p[999]

    def test_lists_and_arrays_without_dimension(self):
        p = Permutation(1000, seed=0, epoch=0)
        assert p[[3, -1]].tolist() == [p[3], p[-1]]
        assert p[np.array(3)] == p[3]
        assert p[[]].shape == (0,)
        assert p[np.zeros((0, 4), dtype=int)].shape == (0, 4)

    @pytest.mark.parametrize("n", [10, 1000])
    @pytest.mark.parametrize("outside", [1000, -1001, [0, 1000], np.array([2**63], dtype=np.uint64), 2**70])
    def test_out_of_range(self, n, outside):
        with pytest.raises(IndexError, match="out of range"):
            Permutation(n, seed=0, epoch=0)[outside]

    @pytest.mark.parametrize("wrong", [1.0, "1", None, [1.0], np.array([True] * 10)])
    def test_what_is_not_a_position(self, wrong):
        with pytest.raises(TypeError):
            Permutation(10, seed=0, epoch=0)[wrong]

    def test_iteration_goes_through_the_whole_in_order(self):
        p = Permutation(10_000, seed=0, epoch=0)
        assert len(p) == 10_000
        assert list(p) == p[:].tolist()

    def test_memory_does_not_grow_with_n(self):
        tracemalloc.start()
        Permutation(2**62, seed=0, epoch=0)[10**12 : 10**12 + 64]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100_000


class TestKeys:
    def test_the_same_everywhere_and_for_ever(self):
        # A checkpoint resumes in the middle of an epoch: these orders may not change between versions.
        assert Permutation(10, seed=0, epoch=0)[:].tolist() == [3, 5, 7, 4, 6, 8, 9, 2, 1, 0]
        assert Permutation(10**9, seed=-(2**70), epoch=90)[:4].tolist() == [599932595, 953515755, 423671720, 286703267]

    def test_is_a_value(self):
        p = Permutation(1000, seed=1, epoch=2)
        assert p == Permutation(np.int64(1000), seed=1, epoch=2)
        assert hash(p) == hash(Permutation(1000, 1, 2))
        assert repr(p) == "Permutation(n=1000, seed=1, epoch=2)"
        for twin in (pickle.loads(pickle.dumps(p)), copy.deepcopy(p)):
            assert twin == p
            assert np.array_equal(twin[:], p[:])

    @pytest.mark.parametrize(
        "other",
        [
            (1000, 0, 1),
            (1000, -1, 0),
            (1000, 2**64, 0),
            (1000, 2**64 + 1, 0),
            (1000, -(2**64), 0),
            (1000, 10, 0),
            (1000, 1, 10),
            (1000, 11, 0),
            (1000, 1, 1),
            (1001, 1, 0),
        ],
    )
    def test_seed_epoch_and_n_never_alias(self, other):
        one, two = Permutation(1000, 1, 0)[:], Permutation(*other)[:1000]
        # Two unrelated orders have about one position in common; ten in common has a chance of 1e-7.
        assert (one == two).sum() < 10

    @pytest.mark.parametrize("bad", [True, 1.0, "1", None, np.float64(1)])
    @pytest.mark.parametrize("name", ["n", "seed", "epoch"])
    def test_only_integers_are_taken(self, name, bad):
        with pytest.raises(ConfigError, match=f"{name} must be an integer, got"):
            Permutation(**({"n": 10, "seed": 0, "epoch": 0} | {name: bad}))

    @pytest.mark.parametrize(("n", "epoch"), [(-1, 0), (2**62 + 1, 0), (10, -1)])
    def test_out_of_range_is_an_error(self, n, epoch):
        with pytest.raises(ConfigError, match="got"):
            Permutation(n, seed=0, epoch=epoch)


def chi_square_p(statistic: float, freedom: int) -> float:
    """Upper tail of the chi-square distribution, by Wilson and Hilferty's normal approximation (1931)."""
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return math.erfc(z / math.sqrt(2)) / 2


def p_of_positions(orders: np.ndarray) -> float:
    """How likely chance is as uneven in "sample x at position i". orders: (permutations, n)."""
    count, n = orders.shape
    seen = np.bincount((orders + np.arange(n) * n).ravel(), minlength=n * n)
    # Each row and each column sums to `count`, hence the factor and (n - 1)**2 degrees of freedom.
    statistic = ((seen - count / n) ** 2 / (count / n)).sum() * (n - 1) / n
    return chi_square_p(float(statistic), (n - 1) ** 2)


def p_of_neighbours(orders: np.ndarray) -> float:
    """How likely chance is as uneven in "y right after x". orders: (permutations, n)."""
    count, n = orders.shape
    seen = np.bincount((orders[:, :-1] * n + orders[:, 1:]).ravel(), minlength=n * n)
    seen = seen[~np.eye(n, dtype=bool).ravel()]
    expected = count / n
    return chi_square_p(float(((seen - expected) ** 2 / expected).sum()), n * (n - 1) - 1)


def orders_of(n, count, *, by_epoch):
    # The seeds and epochs are fixed, so this passes always or never.
    keys = ((7, i) if by_epoch else (i, 0) for i in range(count))
    return np.stack([Permutation(n, seed, epoch)[:] for seed, epoch in keys])


class TestUniformity:
    """Chi-square at a chance of 1e-6, over seeds and over the epochs of one seed."""

    @pytest.mark.parametrize(
        ("n", "count"), [(2, 2000), (3, 1000), (5, 1000), (7, 1000), (10, 1000), (16, 2000), (65, 1000), (100, 1000)]
    )
    @pytest.mark.parametrize("by_epoch", [False, True], ids=["seeds", "epochs"])
    def test_positions_and_neighbours(self, n, count, by_epoch):
        orders = orders_of(n, count, by_epoch=by_epoch)
        assert p_of_positions(orders) > 1e-6
        assert p_of_neighbours(orders) > 1e-6

    def test_consecutive_epochs_are_unrelated(self):
        orders = orders_of(16, 2001, by_epoch=True)
        # Sample at position i now, and in the epoch after: (sample, next sample) is even if the two are unrelated.
        seen = np.bincount((orders[:-1] * 16 + orders[1:]).ravel(), minlength=256)
        expected = 2000 / 16
        assert chi_square_p(float(((seen - expected) ** 2 / expected).sum()), 255) > 1e-6

    def test_a_long_order_is_even_along_its_length(self):
        n, bins = 1_000_000, 50
        order = Permutation(n, seed=0, epoch=0)[:200_000]
        # Where samples come from (bins of the index) against where they go (bins of the epoch).
        seen = np.bincount(order * bins // n * bins + np.arange(200_000) // 4000, minlength=bins * bins)
        assert chi_square_p(float(((seen - 80) ** 2 / 80).sum()), (bins - 1) ** 2) > 1e-6
        # Distances between neighbours: even over the circle.
        gaps = np.bincount(np.diff(order) % n * 1000 // n, minlength=1000)
        expected = 199_999 / 1000
        assert chi_square_p(float(((gaps - expected) ** 2 / expected).sum()), 999) > 1e-6

    @pytest.mark.parametrize(("n", "rounds"), [(5, 2), (10, 2), (16, 2), (100, 2), (100, 4)])
    def test_these_checks_catch_too_few_rounds(self, monkeypatch, n, rounds):
        monkeypatch.setattr(module, "_ROUNDS", rounds)
        assert p_of_neighbours(orders_of(n, 1000, by_epoch=False)) < 1e-6

    def test_these_checks_catch_a_rotation(self):
        orders = (np.arange(16) + np.arange(2000)[:, None]) % 16
        assert p_of_positions(orders) > 1e-6, "a rotation puts every sample everywhere equally often"
        assert p_of_neighbours(orders) < 1e-6

    def test_these_checks_pass_numpy(self):
        orders = np.random.default_rng(0).permuted(np.tile(np.arange(16), (2000, 1)), axis=1)
        assert p_of_positions(orders) > 1e-6
        assert p_of_neighbours(orders) > 1e-6
