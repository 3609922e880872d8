"""What callbacks remember, as it is kept in a checkpoint."""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

from dist_loader.training.checkpoint import random_state
from dist_loader.training.checkpoint.callback_states import CallbackStates


class Own(keras.callbacks.Callback):
    """A user's own."""

    def __init__(self, patience: int = 3) -> None:
        super().__init__()
        self.patience = patience
        self.seen: list[Any] = []
        self.by_name: dict[str, float] = {}
        self.array = np.zeros(2)
        self.file = object()


def went_through_json(states: CallbackStates) -> tuple[Any, Any]:
    found, arrays = states.get()
    return json.loads(json.dumps(found)), arrays


def test_what_has_changed_comes_back_and_settings_stay_new() -> None:
    old, new = Own(patience=3), Own(patience=9)
    before, after = CallbackStates([old]), CallbackStates([new])
    old.seen += [1, 2.5, float("nan"), "x", None, [True]]
    old.by_name["loss"] = np.float32(0.5)
    old.array = np.arange(3)
    old.file = object()
    after.put_back(*went_through_json(before))
    assert repr(new.seen) == repr(old.seen)
    assert new.by_name == {"loss": 0.5}
    assert new.array.tolist() == [0, 1, 2]
    assert new.patience == 9
    assert new.file is not old.file


def test_lists_of_arrays_come_back_as_such() -> None:
    old, new = (keras.callbacks.EarlyStopping("loss", restore_best_weights=True) for _ in range(2))
    before, after = CallbackStates([old]), CallbackStates([new])
    old.best, old.wait, old.best_weights = 0.25, 2, [np.ones((2, 3), np.float32), np.zeros(0)]
    after.put_back(*went_through_json(before))
    assert (new.best, new.wait) == (0.25, 2)
    assert [weights.shape for weights in new.best_weights] == [(2, 3), (0,)]


def test_a_callback_of_another_class_starts_anew() -> None:
    old, new = (
        [Own(), keras.callbacks.ReduceLROnPlateau()],
        [keras.callbacks.Callback(), keras.callbacks.ReduceLROnPlateau()],
    )
    before, after = CallbackStates(old), CallbackStates(new)
    old[0].seen.append(1)
    old[1].wait = 4
    after.put_back(*went_through_json(before))
    assert not hasattr(new[0], "seen")
    assert new[1].wait == 4


@pytest.mark.parametrize("waiting", [False, True])
def test_the_random_generators_go_on(waiting: bool) -> None:
    import random

    if waiting:  # the second of a pair of normal numbers
        random.gauss(0, 1)
        np.random.randn()  # noqa: NPY002
    states = random_state.get()

    def drawn() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), np.random.randn()]  # noqa: NPY002

    first = drawn()
    drawn()
    random_state.put_back(states)
    assert drawn() == first
