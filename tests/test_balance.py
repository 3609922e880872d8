"""Epochs in which classes have given shares."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.index import Index
from dist_loader.sequence.balance import BalancedOrder

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@given(LABELS, st.integers(1, 200), st.integers(0, 5), st.booleans())
def test_every_epoch_draws_equal_numbers_of_all_classes(labels, draws, seed, shuffle) -> None:
    order = BalancedOrder(labels, "equal", draws, seed, shuffle)
    for epoch in range(3):
        counts = Counter(labels[order.samples(epoch, np.arange(draws))].tolist())
        each = draws / len(set(labels.tolist()))
        assert all(abs(counts[label] - each) < 1 for label in set(labels.tolist()))


@given(LABELS, st.integers(1, 200), st.booleans(), st.integers(1, 6))
def test_samples_of_a_class_take_turns_over_the_epochs(labels, draws, shuffle, epochs) -> None:
    order = BalancedOrder(labels, "equal", draws, 3, shuffle)
    drawn = Counter(np.concatenate([order.samples(epoch, np.arange(draws)) for epoch in range(epochs)]).tolist())
    for label in set(labels.tolist()):
        times = [drawn[sample] for sample in np.flatnonzero(labels == label).tolist()]
        assert max(times) - min(times) <= 1


@given(LABELS, st.integers(1, 100))
def test_any_part_of_an_epoch_is_the_same_by_itself(labels, draws) -> None:
    order = BalancedOrder(labels, "equal", draws, 1)
    whole = order.samples(2, np.arange(draws))
    assert [int(order.samples(2, np.array([at]))[0]) for at in range(draws)] == whole.tolist()
    assert order.samples(2, np.arange(draws)[::-1].reshape(1, -1)).ravel().tolist() == whole[::-1].tolist()


@pytest.mark.parametrize("first", [1, 1 << 16, (1 << 16) + 1, 3 << 16])
def test_labels_beyond_a_block_are_counted_and_found(first) -> None:
    labels = np.repeat(np.array([0, 2, 1], np.int32), [first, 3 << 16, 5])
    order = BalancedOrder(labels, "equal", 30, 0, shuffle=False)
    assert labels[order.samples(0, np.arange(30))].tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_many_labels_in_order_take_no_memory_of_their_own() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), 1 << 20)
    tracemalloc.start()
    BalancedOrder(labels, "equal", 30, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.nbytes / 4


def test_shares_are_kept_and_wrong_ones_refused() -> None:
    labels = np.repeat([0, 1, 2], [90, 9, 1])
    order = BalancedOrder(labels, {0: 1, 1: 2, 2: 1}, 40, 0)
    assert order.draws_by_label() == {0: 10, 1: 20, 2: 10}
    assert BalancedOrder(labels, {1: 0.5}, 10, 0).draws_by_label() == {1: 10}
    for shares, message in (
        ({3: 1.0}, "the label 3, of which there is no sample"),
        ({0: -1.0}, "the share -1.0"),
        ({0: float("nan")}, "the share nan"),
        ({}, "no share above 0"),
        ("even", 'must be "equal"'),
    ):
        with pytest.raises(dl.ConfigError, match=message):
            BalancedOrder(labels, shares, None, 0)


@pytest.fixture
def uneven(tmp_path: Path, numbered: Callable[[int], Index]) -> Index:
    index = numbered(30)
    return dl.Index.from_paths(
        [index.path(n) for n in range(30)], ["rare" if n % 10 == 0 else "usual" for n in range(30)]
    )


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_draw_the_same_epoch_in_equal_steps(uneven: Index, ranks: int) -> None:
    def drawn(size: int) -> list[list[int]]:
        sequences = [
            dl.ImageSequence(
                uneven, (4, 4), 12 // size, 24, world=dl.World(rank, size, rank, size), class_shares="equal"
            )
            for rank in range(size)
        ]
        assert len({len(sequence) for sequence in sequences}) == 1
        return [
            [int(n) for sequence in sequences for n in sequence.numbers(1, step)] for step in range(len(sequences[0]))
        ]

    assert drawn(ranks) == drawn(1)


def test_labels_and_pixels_are_those_of_the_samples_drawn(uneven: Index) -> None:
    sequence = dl.ImageSequence(
        uneven, (4, 4), 8, 64, world=dl.World(0, 1, 0, 1), class_shares={0: 3, 1: 1}, epoch_samples=60
    )
    seen: Counter[int] = Counter()
    for x, y, weights in sequence.get_numpy_iterator():
        seen.update(y[weights > 0].tolist())
        assert [n % 10 != 0 for n in x[:, 0, 0, 0].tolist()] == y.tolist()
    assert seen == {0: 45, 1: 15}
    sequence.close()


def test_a_training_resumes_and_predict_refuses(uneven: Index, tmp_path: Path) -> None:
    import keras

    def trained(epochs: int, folder: str, **options) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        strategy = dl.init()
        model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(1e-4), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        sequence = dl.ImageSequence(uneven, (4, 4), 8, 64, strategy=strategy, **options)
        strategy.fit(model, sequence, epochs=epochs, checkpoint_dir=tmp_path / folder, verbose=0)
        with pytest.raises(dl.ConfigError, match="predict needs every sample once"):
            strategy.predict(model, sequence)
        return model.get_weights()

    whole = trained(3, "whole", class_shares="equal")
    trained(1, "parts", class_shares="equal")
    for one, other in zip(whole, trained(3, "parts", class_shares="equal"), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(dl.ConfigError, match="has order balanced"):
        trained(4, "parts", class_shares={0: 1, 1: 3})


def test_what_cannot_be_balanced_is_refused(uneven: Index) -> None:
    with pytest.raises(dl.ConfigError, match="epoch_samples=5 without class_shares"):
        dl.ImageSequence(uneven, (4, 4), 8, 64, world=dl.World(0, 1, 0, 1), epoch_samples=5)


def test_a_validation_whose_labels_mean_other_classes_is_refused(uneven: Index) -> None:
    import keras

    strategy = dl.init()
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    paths = [uneven.path(n) for n in range(4)]
    train = dl.ImageSequence(uneven, (4, 4), 8, 64, strategy=strategy)
    for classes, message in (
        (["usual", "rare"], "the label 0 is the class 'usual' in the validation and 'rare' in the training"),
        (["rare", "usual", "new"], "the label 2 is the class 'new' in the validation and none in the training"),
    ):
        other = dl.Index.from_paths(paths, [0, 0, 1, 1], classes=classes)
        valid = dl.ImageSequence(other, (4, 4), 8, 64, strategy=strategy)
        with pytest.raises(dl.ConfigError, match=message):
            strategy.fit(model, train, valid, epochs=1, verbose=0)
    fewer = dl.Index.from_paths(paths, [0, 0, 0, 0], classes=["rare"])
    strategy.fit(model, train, dl.ImageSequence(fewer, (4, 4), 8, 64, strategy=strategy), epochs=1, verbose=0)
