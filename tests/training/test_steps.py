"""How often TensorFlow traces a step: minutes each time, with a large model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import dist_loader as dl


class Counting(keras.layers.Layer):
    """Knows how often it was called, and whether to train."""

    def __init__(self) -> None:
        super().__init__()
        self.called = {True: 0, False: 0}

    def call(self, inputs: object, training: bool = False) -> object:
        self.called[training] += 1
        return inputs


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("slices", [1, 2])
def test_steps_are_traced_once(slices: int, outputs: int) -> None:
    """Keras makes the variables of metrics while it traces, and TensorFlow then traces again."""
    strategy = dl.init("single")
    labels = {f"out{at}": np.arange(16) % 2 for at in range(outputs)}
    targets = labels if outputs > 1 else labels["out0"]
    x = np.zeros((16, 4), np.float32)
    sequence = dl.ArraySequence(x, targets, device_batch=8 // slices, global_batch=8, strategy=strategy)
    counting = Counting()
    inputs = keras.Input((4,))
    counted = counting(inputs)
    heads = [keras.layers.Dense(2, name=name)(counted) for name in labels]
    model = keras.Model(inputs, dict(zip(labels, heads, strict=True)) if outputs > 1 else heads[0])
    loss = {name: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for name in labels}
    metrics = {name: ["accuracy"] for name in labels}
    if outputs == 1:
        loss, metrics = loss["out0"], metrics["out0"]
    model.compile("adam", loss, metrics=metrics)
    built = dict(counting.called)
    history = strategy.fit(model, sequence, validation_data=sequence, epochs=2, verbose=0)
    assert len(history.history) == (4 if outputs == 1 else 10)
    to_count = int(slices > 1)  # a forward pass shows what the losses count over all slices
    assert counting.called[True] - built[True] == 1 + to_count
    assert counting.called[False] - built[False] == 1 + to_count


def test_an_embedding_learns_alike_in_one_piece_and_in_slices() -> None:
    """Its gradient comes in parts, many of the same row, which Keras's Adam squares one by one."""

    def table(slices: int) -> np.ndarray:
        keras.utils.set_random_seed(3)
        strategy = dl.init("single")
        tokens, targets = np.arange(96).reshape(16, 6) % 5, np.arange(16) % 3
        sequence = dl.ArraySequence(tokens, targets, device_batch=8 // slices, global_batch=8, strategy=strategy)
        layers = [keras.layers.Embedding(5, 4), keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((6,), dtype="int64"), *layers])
        model.compile(keras.optimizers.Adam(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        strategy.fit(model, sequence, epochs=2, verbose=0)
        return model.get_weights()[0]

    np.testing.assert_allclose(table(1), table(2), rtol=0, atol=1e-5)
