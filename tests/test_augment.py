"""Functions of a user's that change samples on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import dist_loader as dl
from dist_loader.index import Index

SIZE = (8, 8)


def flipped(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Adds a number that is drawn, and moves the label by another."""
    return x + rng.integers(0, 20, dtype=np.uint8), y + rng.integers(0, 100, dtype=np.int32)


def epoch_of(sequence: dl.ImageSequence, epoch: int = 0) -> dict[int, tuple[Any, int]]:
    """What a rank's epoch shows of each sample: by its number, the first pixel and the label."""
    sequence.epoch = epoch
    shown = {}
    for step in range(len(sequence)):
        x, y, *weights = sequence[step]
        real = weights[0] > 0 if weights else np.ones(len(x), bool)
        numbers = sequence.numbers(epoch, step)
        shown |= {
            int(number): (pixels.tobytes(), int(label))
            for number, pixels, label in zip(numbers[real], x[real], y[real], strict=True)
        }
    sequence.close()
    return shown


def world(rank: int, size: int) -> dl.World:
    return dl.World(rank, size, rank, size)


@pytest.mark.parametrize("how", ["augment", "augment_batch"])
def test_randomness_is_the_same_on_any_number_of_ranks_threads_and_batches(
    numbered: Callable[[int], Index], how: str
) -> None:
    index = numbered(40)

    def shown(ranks: int, threads: int, device_batch: int, epoch: int) -> dict:
        parts = [
            epoch_of(
                dl.ImageSequence(
                    index, SIZE, device_batch, 64, world=world(rank, ranks), threads=threads, **{how: flipped}
                ),
                epoch,
            )
            for rank in range(ranks)
        ]
        assert sum(map(len, parts)) == 40
        return {number: what for part in parts for number, what in part.items()}

    one = shown(1, 1, 4, epoch=1)
    assert one == shown(2, 3, 4, epoch=1)
    assert one != shown(1, 1, 4, epoch=0)
    if how == "augment":
        assert one == shown(1, 2, 8, epoch=1)
    plain = epoch_of(dl.ImageSequence(index, SIZE, 4, 64, world=world(0, 1)), 1)
    assert sum(one[n] != plain[n] for n in range(40)) > 30


def test_a_sample_can_be_changed_in_place_and_has_its_own_label(numbered: Callable[[int], Index]) -> None:
    def change(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x[...] = x[::-1]
        x[0, 0, 2] = y
        return x, y

    sequence = dl.ImageSequence(numbered(10), SIZE, 5, 64, world=world(0, 1), augment=change)
    for step in range(2):
        x, y = sequence[step]
        assert x[:, 0, 0, 2].tolist() == y.tolist() == [2 * n // 10 for n in sequence.numbers(0, step)]
    sequence.close()


def test_named_inputs_and_outputs_and_one_hot_labels_reach_the_function(numbered: Callable[[int], Index]) -> None:
    def smooth(x: dict, y: dict, rng: np.random.Generator) -> tuple[dict, dict]:
        assert x["input"].dtype == np.uint8
        return {"input": 255 - x["input"]}, {"output": y["output"] * 0.5 + 0.25}

    names = {"input_name": "input", "output_name": "output", "labels": "one-hot"}
    sequence = dl.ImageSequence(numbered(10), SIZE, 5, 64, world=world(0, 1), augment=smooth, **names)
    x, y = sequence[0]
    assert sorted(set(y["output"].ravel().tolist())) == [0.25, 0.75]
    assert (255 - x["input"][:, 0, 0, 0]).tolist() == sequence.numbers(0, 0).tolist()
    sequence.close()


def test_with_bad_samples_the_one_in_the_place_is_changed(tmp_path: Any, numbered: Callable[[int], Index]) -> None:
    index = numbered(10)
    paths = [index.path(n) for n in range(10)]
    paths[3] = str(tmp_path / "gone.png")
    listed = dl.Index.from_paths(paths, index.labels.tolist())

    def mark(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return np.full_like(x, 7), y

    for how in ("augment", "augment_batch"):
        sequence = dl.ImageSequence(listed, SIZE, 5, 64, world=world(0, 1), on_bad="weight0", **{how: mark})
        for step in range(2):
            x, _, weights = sequence[step]
            assert (x == 7).all()
            assert np.count_nonzero(weights) == 5 - (3 in sequence.numbers(0, step))
        sequence.close()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, y, rng: (x / 255, y), r"x must come back as uint8 \(8, 8, 3\), not float64 .*a layer's work"),
        (lambda x, y, rng: (x[:4], y), r"not uint8 \(4, 8, 3\)"),
        (lambda x, y, rng: (x, y + 0.5), r"y must come back as int32 \(\), not float64"),
        (lambda x, y, rng: x, r"it must return \(x, y\), not ndarray"),
        (lambda x, y, rng: ({"a": x}, y), "x must have the structure"),
        (lambda x, y, rng: 1 // 0, "ZeroDivisionError: integer division"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_the_sample(
    numbered: Callable[[int], Index], function: Any, message: str
) -> None:
    sequence = dl.ImageSequence(
        numbered(10), SIZE, 5, 64, world=world(0, 1), augment=function, shuffle=False, on_bad="replace"
    )
    with pytest.raises(dl.AugmentError, match=rf"augment, of sample \d \(.*0000\d\.png\): .*{message}"):
        sequence[0]
    sequence.close()


def test_it_trains_and_resumes_as_if_nothing_had_happened(tmp_path: Any, numbered: Callable[[int], Index]) -> None:
    def trained(epochs: int, folder: Any) -> list[np.ndarray]:
        keras.utils.set_random_seed(1)
        strategy = dl.init()
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(120)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(1e-4), loss)
        sequence = dl.ImageSequence(numbered(40), SIZE, 8, 64, strategy=strategy, augment=flipped)
        strategy.fit(model, sequence, epochs=epochs, checkpoint_dir=folder, verbose=0)
        return model.get_weights()

    whole = trained(3, tmp_path / "whole")
    trained(1, tmp_path / "parts")
    for one, other in zip(whole, trained(3, tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(one, other)
