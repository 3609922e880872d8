"""Learning rates for larger global batches."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import dist_loader as dl
from dist_loader.training.learning_rate import described


@pytest.mark.parametrize(("rule", "scaled"), [("none", 0.1), ("linear", 1.6), ("sqrt", 0.4)])
def test_rules(rule: str, scaled: float) -> None:
    assert dl.scaled_learning_rate(0.1, 16, rule) == pytest.approx(scaled)


def test_nothing_is_scaled_unless_asked_for() -> None:
    assert dl.scaled_learning_rate(0.1, 64) == 0.1


def test_a_warm_up_rises_from_the_base_rate_and_stays() -> None:
    schedule = dl.scaled_learning_rate(0.1, 4, "linear", warmup_steps=10)
    rates = [float(schedule(step)) for step in (0, 5, 10, 1000)]
    np.testing.assert_allclose(rates, [0.1, 0.25, 0.4, 0.4], rtol=1e-6)


def test_a_model_with_a_warm_up_is_loaded_without_this_package(tmp_path) -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(dl.scaled_learning_rate(0.1, 4, "sqrt", warmup_steps=3)), "mse")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").optimizer
    assert type(loaded._learning_rate).__module__.startswith("keras.")
    assert described(loaded) == described(model.optimizer)


def test_what_the_summary_says() -> None:
    assert described(keras.optimizers.SGD(0.25)) == "0.25"
    words = described(keras.optimizers.SGD(dl.scaled_learning_rate(0.1, 4, "linear", warmup_steps=7)))
    assert words.startswith(
        "linear_scaling_with_warm_up(initial_learning_rate=0.1, decay_steps=7, end_learning_rate=0.4"
    )


@pytest.mark.parametrize("wrong", [{"rule": "cubic"}, {"warmup_steps": -1}, {"warmup_steps": 1.5}])
def test_mistakes_are_named(wrong: dict) -> None:
    with pytest.raises(dl.ConfigError, match=str(next(iter(wrong.values())))):
        dl.scaled_learning_rate(0.1, 4, **wrong)
