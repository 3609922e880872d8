"""What ranks compare before they train, and how differences are told."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from dist_loader.devices.single import SingleDevice
from dist_loader.errors import ConfigError
from dist_loader.index import Index
from dist_loader.sequence.image import ImageSequence
from dist_loader.training.agreement import facts_of, model_facts, plain, require_same
from dist_loader.training.watched import limits_of, watched
from dist_loader.watchdog import Limits
from dist_loader.world import World


def test_differences_are_told_with_values_and_ranks() -> None:
    same = {"epochs": "9", "seed": "0"}
    require_same([same, same, same, same])
    with pytest.raises(ConfigError, match="seed: 0 on ranks 0-2, 7 on rank 3; start all ranks"):
        require_same([same, same, same, same | {"seed": "7"}])
    with pytest.raises(ConfigError, match="seed: 0 on ranks 0, 2, 7 on rank 1, 8 on rank 3"):
        require_same([same | {"seed": seed} for seed in "0708"])


def test_what_only_some_ranks_have_is_told_if_nothing_else_differs() -> None:
    with pytest.raises(ConfigError, match="layer 3: nothing on rank 0, Dense on rank 1"):
        require_same([{"seed": "0"}, {"seed": "0", "layer 3": "Dense"}])
    with pytest.raises(ConfigError, match="job: seed: 0 on rank 0, 1 on rank 1; start"):
        require_same([{"seed": "0"}, {"seed": "1", "layer 3": "Dense"}])


def test_long_values_and_many_differences_are_cut() -> None:
    with pytest.raises(ConfigError) as caught:
        require_same([{f"layer {n}": f"{n} {rank} " * 500 for n in range(100)} for rank in range(2)])
    assert len(str(caught.value)) < 2000
    assert "and 95 more" in str(caught.value)


def model(units: int = 4, wires: tuple[int, int] = (0, 1)) -> keras.Model:
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    flat = keras.layers.Flatten()(inputs)
    both = [keras.layers.Dense(units, activation=how)(flat) for how in ("relu", "tanh")]
    outputs = keras.layers.Subtract()([both[wires[0]], both[wires[1]]])
    made = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dropout(0.1)(outputs)))
    made.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return made


def test_numbered_names_make_no_difference_and_wires_do() -> None:
    configs = [plain(keras.saving.serialize_keras_object(made)) for made in (model(), model(), model(wires=(1, 0)))]
    assert configs[0] == configs[1]
    assert configs[0] != configs[2]


def test_facts_tell_models_samples_and_pixels_apart(numbered) -> None:
    devices = SingleDevice(World(0, 1, 0, 1))

    def facts(made: keras.Model, index: Index, **more) -> dict:
        how = {"size": (8, 8), "device_batch": 2, "world": devices.world}
        return {**facts_of(devices, ImageSequence(index, **how | more), None, epochs=3), **model_facts(made)}

    index = numbered(6)
    usual = facts(model(), index)
    assert usual == facts(model(), index)
    assert usual["keras"] == keras.__version__

    def differing(other: dict) -> set[str]:
        return {name for name in {**usual, **other} if usual.get(name) != other.get(name)}

    assert differing(facts(model(), index, seed=1)) == {"seed"}
    assert differing(facts(model(), index.take(np.arange(5)))) == {"samples", "index"}
    assert differing(facts(model(), index, size=(9, 8))) == {"pixels"}
    assert differing(facts(model(), index, class_weight={0: 2.0})) == {"weights by_label"}
    assert {"layer 2 units", "weight 0", "parameters"} <= differing(facts(model(units=5), index))


def test_of_long_values_the_part_that_differs_is_shown() -> None:
    """Of a schedule, of what a model was compiled with and of nested models, and not only that they differ."""
    long = [f"{'a, ' * 90}decay_steps: {steps}, {'b, ' * 90}" for steps in (100, 200)]
    with pytest.raises(
        ConfigError, match=r"x: \.\.\.a, .*decay_steps: 100, .*\.\.\. on rank 0, .*decay_steps: 200, .* on rank 1"
    ):
        require_same([{"x": value} for value in long])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"loss_weights": 0.5}, '"loss_weights": null.* on rank 0, .*"loss_weights": 0.5.* on rank 1'),
        ({"metrics": ["mae"]}, '"metrics": \\["accuracy"\\].* on rank 0, .*"metrics": \\["mae"\\].* on rank 1'),
    ],
)
def test_what_a_model_was_compiled_with_is_shown(how: dict, words: str) -> None:
    ours, theirs = model(), model()
    theirs.compile("sgd", ours.loss, **{"metrics": ["accuracy"], **how})
    with pytest.raises(ConfigError, match=words):
        require_same([model_facts(ours), model_facts(theirs)])


def test_a_device_batch_to_be_found_is_no_number(numbered) -> None:
    devices = SingleDevice(World(0, 1, 0, 1))

    def facts(device_batch: object) -> dict:
        how = {"size": (8, 8), "device_batch": device_batch, "global_batch": 2, "world": devices.world}
        return dict(facts_of(devices, ImageSequence(numbered(6), **how), None, epochs=3))

    with pytest.raises(ConfigError, match="device_batch: 2 on rank 0, auto on rank 1"):
        require_same([facts(2), facts("auto")])


@pytest.mark.parametrize(("given", "seconds"), [(None, None), (0, None), (600, 600.0), (1.5, 1.5)])
def test_watchdog_takes_seconds(given: float | None, seconds: float | None) -> None:
    limits = limits_of(given)
    assert (limits and limits.stall) == seconds


def test_the_limit_of_first_steps_is_a_number_of_its_own() -> None:
    assert limits_of(5, 20) == Limits(stall=5, lost=5, first=20)
    assert limits_of(5) == Limits(stall=5, lost=5, first=1800)


@pytest.mark.parametrize("given", [-1, 0.5, True, False, "600", float("nan"), float("inf")])
def test_watchdog_refuses_what_is_no_number_of_seconds(given: object) -> None:
    with pytest.raises(ConfigError, match="watchdog must be"):
        limits_of(given)
    with pytest.raises(ConfigError, match="watchdog_first must be"):
        limits_of(600, given)


def test_one_rank_is_not_watched(threads) -> None:
    with watched(SingleDevice(World(0, 1, 0, 1)), "fit", Limits.of(600), None, None) as watch:
        assert watch.notes is None
        assert threads() == []
