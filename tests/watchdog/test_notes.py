"""What Keras's callbacks note."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np

from dist_loader.training.watched import Watched
from dist_loader.watchdog.look import Look
from dist_loader.watchdog.place import Notes


class Recorded(Notes):
    """Notes that remember."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def mark(self, *args, **more) -> None:
        super().mark(*args, **more)
        at = self.place
        self.seen.append((at.doing, at.stage, at.epoch, at.step))


def test_callbacks_note_each_place_once_and_in_order() -> None:
    notes, model = Recorded(), keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = np.zeros((4, 2)), np.zeros((4, 1))
    how = {"batch_size": 2, "verbose": 0, "callbacks": Watched(notes).around([])}
    model.fit(x, y, epochs=2, validation_data=(x[:2], y[:2]), **how)
    assert notes.place.count == len(notes.seen)
    for epoch, step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        doing = "first step" if (epoch, step) == (0, 0) else "step"
        at = notes.seen.index((doing, "training", epoch, step))
        assert [place[0] for place in notes.seen[at - 1 : at + 3]] == ["callbacks", doing, "callbacks", "between"]
    validation = [place[0] for place in notes.seen if place[1] == "validation"]
    assert (validation.count("first step"), validation.count("step")) == (1, 1)
    assert [place[2] for place in notes.seen if place[0] == "agreeing"] == [0, 1]


def test_a_step_that_is_compiled_once_more_has_the_time_of_a_first_one() -> None:
    """It is the same place: the other ranks may have nothing to compile."""
    notes = Notes()
    notes.mark("callbacks", step=3)
    notes.mark_compiling()
    assert notes.place.doing == "callbacks"
    notes.mark("step")
    before = notes.place
    notes.mark_compiling()
    assert notes.place == replace(before, doing="first step")


def test_a_checkpoint_is_written_at_the_same_place() -> None:
    notes = Notes()
    notes.mark("agreeing", "training", 1, 4)
    before = notes.place
    with notes.at("writing"):
        assert replace(notes.place, since=0.0) == replace(before, doing="writing", since=0.0)
    assert replace(notes.place, since=0.0) == replace(before, since=0.0)
    assert notes.place.since > before.since


def test_the_first_batch_of_the_validation_is_waited_for_before_it_begins() -> None:
    """By Keras, which looks at it: it has the time of a first step, and the file a name."""
    notes = Notes(lambda stage, step: "photos/a.jpg" if (stage, step) == ("validation", 0) else None)
    notes.mark("step", "training", 2, 14)
    assert Look(notes).state().detail == ""
    notes.mark("between")
    seen = Look(notes).state()
    assert (seen.doing, seen.stage, seen.epoch, seen.step) == ("first step", "validation", 2, 0)
    assert seen.detail == "photos/a.jpg"


def test_the_end_of_a_training_has_callbacks_too() -> None:
    notes, model = Recorded(), keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    during = keras.callbacks.LambdaCallback(on_train_end=lambda logs: notes.seen.append("the user's"))
    model.fit(np.zeros((2, 2)), np.zeros((2, 1)), verbose=0, callbacks=Watched(notes).around([during]))
    end = notes.seen.index("the user's")
    assert (notes.seen[end - 1][0], notes.seen[end + 1][0]) == ("callbacks", "between")


def test_nobody_looks_at_a_single_rank() -> None:
    callback = keras.callbacks.Callback()
    assert Watched(None).around([callback]) == [callback]
    Watched(None).agreeing()
