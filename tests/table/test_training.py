"""Training on tables: the numbers are those of Keras on the same rows in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

import dist_loader as dl
from tests.table.test_table_sequence import ROWS, palette, people

BATCH = 5


@pytest.fixture(scope="module")
def strategy() -> dl.Strategy:
    return dl.init("single")


@pytest.fixture
def make(strategy: dl.Strategy, threads: object) -> Iterator[Callable[..., dl.TableSequence]]:
    made = []

    def make(table: dl.Table, **options: object) -> dl.TableSequence:
        made.append(dl.TableSequence(table, BATCH, 20, strategy=strategy, **options))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def several() -> keras.Model:
    """Two inputs and three outputs, all by name."""
    keras.utils.set_random_seed(1)
    n, pair = keras.Input((1,), name="n"), keras.Input((2,), name="pair")
    joined = keras.layers.Concatenate()([n, pair]) / 50.0
    outputs = {
        "half": keras.layers.Dense(1, name="half")(joined),
        "kind": keras.layers.Dense(3, name="kind")(joined),
        "tags": keras.layers.Dense(3, activation="sigmoid", name="tags")(joined),
    }
    model = keras.Model({"n": n, "pair": pair}, outputs)
    losses = {
        "half": "mse",
        "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "tags": "binary_crossentropy",
    }
    model.compile(keras.optimizers.SGD(0.05), losses)
    return model


X = {"n": ["n"], "pair": "pair"}
Y = {"half": "half", "kind": dl.Label("kind"), "tags": dl.Label("tags", separator="|")}


def test_several_inputs_and_outputs_train_as_in_stock_keras(make: Callable, strategy: dl.Strategy) -> None:
    table = people(25)
    ours, keras_own = several(), several()
    train = make(table, x=X, y=Y, weight="w", seed=3)
    shown = [train.numbers(epoch, step) for epoch in range(2) for step in range(len(train))]
    strategy.fit(ours, train, epochs=2, verbose=0)

    n = np.arange(25, dtype=np.float32)
    x = {"n": n[:, None], "pair": np.stack([2 * n, 2 * n + 1], axis=1)}
    y = {
        "half": n / 2,
        "kind": np.array([(1, 2, 0)[i % 3] for i in range(25)]),
        "tags": np.tril(np.ones((4, 3), np.float32), -1)[np.arange(25) % 4],
    }
    for numbers in shown:
        part = keras.tree.map_structure(lambda array, numbers=numbers: array[numbers], (x, y))
        keras_own.train_on_batch(*part, sample_weight=(numbers % 5 / 2).astype(np.float32))
    for one, two in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)

    predicted = strategy.predict(ours, make(table, x=X))
    wanted = ours.predict(x, verbose=0)
    for name, found in predicted.items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-5, atol=1e-6)


class Stop(Exception):
    pass


def test_a_training_goes_on_in_the_middle_of_an_epoch(make: Callable, strategy: dl.Strategy, tmp_path: Path) -> None:
    def trained(folder: Path, *callbacks: keras.callbacks.Callback) -> keras.Model:
        model = several()
        train = make(people(ROWS), x=X, y=Y, seed=4)
        strategy.fit(model, train, epochs=2, checkpoint_dir=folder, checkpoint_every=2, callbacks=callbacks, verbose=0)
        return model

    def stop(step: int, logs: object) -> None:
        if step == 3:
            raise Stop

    with pytest.raises(Stop):
        trained(tmp_path / "broken", keras.callbacks.LambdaCallback(on_train_batch_end=stop))
    resumed, straight = trained(tmp_path / "broken"), trained(tmp_path / "straight")
    for one, two in zip(resumed.get_weights(), straight.get_weights(), strict=True):
        assert one.tolist() == two.tolist()


def test_segmentation_learns_what_is_in_the_masks(make: Callable, strategy: dl.Strategy, tmp_path: Path) -> None:
    from PIL import Image

    rng, rows = np.random.default_rng(0), []
    for number in range(12):
        classes = np.kron(rng.integers(0, 3, (3, 4)), np.ones((6, 6))).astype(np.uint8)
        Image.fromarray(np.eye(3, dtype=np.uint8)[classes] * 255).save(tmp_path / f"{number}.png")
        palette(classes).save(tmp_path / f"{number}.gif")
        rows.append((tmp_path / f"{number}.png", tmp_path / f"{number}.gif"))
    train = make(
        dl.Table.from_rows(rows, names=("photo", "mask")),
        x=dl.Image("photo", (12, 12), resize="nearest"),
        y=dl.Mask("mask", (12, 12)),
        crop="random-resized",
    )
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [keras.Input((12, 12, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 1, name="classes")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.3), loss, metrics=["accuracy"])
    history = strategy.fit(model, train, epochs=8, verbose=0).history
    assert history["accuracy"][-1] == 1.0  # only if image and mask show the same part
