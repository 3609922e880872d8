"""A training that goes on in the middle of an epoch, in one process; on ranks: tests/distributed/test_resume.py."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import dist_loader as dl
from tests.distributed.launching import environment

SAMPLES = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
LABELS = np.arange(50) % 3


class BrokenOffError(Exception):
    """What the training dies of."""


class Breaking(keras.callbacks.Callback):
    """Breaks the training off after a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations.numpy()) == self.step:
            raise BrokenOffError


class Start(keras.callbacks.Callback):
    """Sets the rate when the training begins."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = 0.01


class Noise(keras.callbacks.Callback):
    """Changes the weights as epochs begin, counts them, and draws from every generator."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.sum = tf.Variable(0.0)
        self.drawn: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.begun += 1
        self.drawn.append(random.random())
        kernel = self.model.layers[-1].kernel
        kernel.assign(kernel + np.random.normal(size=kernel.shape) / 10)  # noqa: NPY002

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.sum.assign_add(1.0)
        drawn = keras.random.normal((1,))  # the first one makes Keras's generator, with a number of Python's
        self.drawn += [random.random(), np.random.rand(), float(drawn[0])]  # noqa: NPY002


def trained(folder: Path, callbacks: list[keras.callbacks.Callback], end: int = 0) -> tuple[Any, ...]:
    """All that a training leaves behind, as text; it dies after the step `end`, if that is not 0."""
    keras.backend.clear_session()
    if end:  # as in a notebook, where a model is built again: Keras counts on, and calls the layer "dense_1"
        keras.layers.Dense(3)
    keras.utils.set_random_seed(3)
    strategy = dl.init("single")
    train = dl.ArraySequence(SAMPLES, LABELS, device_batch=12, strategy=strategy)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.3), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    callbacks = [*callbacks, Breaking(end)]
    history = strategy.fit(
        model, train, epochs=3, checkpoint_dir=folder, checkpoint_every=2, callbacks=callbacks, verbose=0
    )
    state = [*model.get_weights(), *[variable.numpy() for variable in model.optimizer.variables]]
    remembered = [
        {name: getattr(callback, name) for name in ("begun", "sum", "drawn") if hasattr(callback, name)}
        for callback in callbacks
    ]
    return [value.tobytes() for value in state], repr(remembered), repr(history.history)


def test_what_callbacks_do_as_a_training_or_an_epoch_begins_is_done_once(tmp_path: Path) -> None:
    """Keras calls `on_train_begin` and `on_epoch_begin` again in a training that goes on."""

    def made() -> list[keras.callbacks.Callback]:
        return [Start(), keras.callbacks.LearningRateScheduler(lambda _, rate: rate * 0.7), Noise()]

    wanted = trained(tmp_path / "whole", made())
    for end in (3, 8):  # in the first epoch and in the second, of 5 steps each; checkpoints are after 2 and after 7
        with pytest.raises(BrokenOffError):
            trained(tmp_path / "broken", made(), end)
    assert trained(tmp_path / "broken", made()) == wanted


def model_of(layers: int = 1, kind: Any = keras.Sequential) -> Any:
    model = kind([keras.Input((4,)), *[keras.layers.Dense(3) for _ in range(layers)]])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fitted(model: Any, **how: Any) -> None:
    strategy = dl.init("single")
    strategy.fit(model, dl.ArraySequence(SAMPLES, LABELS, device_batch=25, strategy=strategy), verbose=0, **how)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"grace": "30"}, "grace must be a number of seconds above 0, not '30'"),
        ({"grace": float("nan")}, "grace"),
        ({"checkpoint_dir": ""}, "checkpoint_dir must be a folder, not ''"),
        ({"checkpoint_dir": "gs://user:word@bucket/run"}, "must be a folder, not 'gs://bucket/run'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_training(how: dict[str, Any], message: str) -> None:
    with pytest.raises(dl.ConfigError, match=message):
        fitted(model_of(), **how)


def with_passes(strategy: Any, **how: Any) -> dl.ArraySequence:
    how = {"device_batch": 5, "host_batch": 20, "host_passes": 2, **how}
    return dl.ArraySequence(SAMPLES, LABELS, strategy=strategy, **how)


def test_a_checkpoint_of_several_passes_says_what_to_give_to_go_on_with_it(tmp_path: Path) -> None:
    strategy = dl.init("single")
    model = model_of()
    strategy.fit(model, with_passes(strategy), checkpoint_dir=tmp_path, verbose=0)
    for options, advice in (
        ({"host_passes": 3}, "host_passes=2 to go on"),
        ({"host_batch": 40}, r"host_batch=20 \(samples\) to go on"),
    ):
        with pytest.raises(dl.ConfigError, match=f"give {advice}"):
            strategy.fit(model, with_passes(strategy, **options), epochs=2, checkpoint_dir=tmp_path, verbose=0)


def test_evaluation_takes_no_passes() -> None:
    """Metrics that count would count every sample so often."""
    strategy = dl.init("single")
    with pytest.raises(dl.ConfigError, match="every sample once.*without host_passes=2"):
        fitted(model_of(), validation_data=with_passes(strategy))
    with pytest.raises(dl.ConfigError, match="every sample once.*without host_passes=2"):
        strategy.evaluate(model_of(), with_passes(strategy))


class TwoOptimizers(keras.Sequential):
    """As a GAN is."""

    def __init__(self, layers: list[Any]) -> None:
        super().__init__(layers)
        self.of_the_critic = keras.optimizers.SGD()


def test_a_checkpoint_would_not_hold_optimizers_of_a_models_own(tmp_path: Path) -> None:
    with pytest.raises(dl.ConfigError, match=r"TwoOptimizers has optimizers beside .* \(of_the_critic\)"):
        fitted(model_of(kind=TwoOptimizers), checkpoint_dir=tmp_path)
    fitted(model_of(kind=TwoOptimizers))


class Doing(keras.callbacks.Callback):
    """Does something after the first step."""

    def __init__(self, what: Any) -> None:
        super().__init__()
        self.what = what

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.what()
        self.what = lambda: None


def test_a_callback_may_change_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fitted(model_of(), checkpoint_dir="run", callbacks=[Doing(lambda: os.chdir("/"))])
    assert len(list((tmp_path / "run").glob("*.npz"))) == 1


def test_messages_name_a_folder_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines"
    fitted(model_of(), checkpoint_dir=folder)
    with pytest.raises(dl.ConfigError, match=r"two\\nlines/epoch-00001-step-000000000.npz' does not fit") as refused:
        fitted(model_of(layers=2), checkpoint_dir=folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(dl.CheckpointError, match="the folder cannot be read any more") as failed:
        fitted(model_of(), checkpoint_dir=folder, epochs=2, callbacks=[Doing(lambda: shutil.rmtree(folder))])
    assert "\n" not in str(failed.value)


MIRRORED = """
import sys
import keras
import numpy as np
import tensorflow as tf
import dist_loader as dl

(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = dl.init("mirrored")
samples = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


class Breaking(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == 3:
            raise InterruptedError


def trained(folder, *callbacks):
    keras.utils.set_random_seed(3)
    train = dl.ArraySequence(samples, np.arange(50) % 3, device_batch=6, strategy=strategy)
    with strategy.scope():
        layers = [keras.layers.BatchNormalization(momentum=0.8), keras.layers.Dropout(0.3), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    how = {"checkpoint_dir": f"{sys.argv[1]}/{folder}", "checkpoint_every": 2, "callbacks": callbacks, "verbose": 0}
    history = strategy.fit(model, train, validation_data=train, epochs=2, **how)
    replicas = [part.numpy().tobytes() for weight in model.weights for part in weight.value.values]
    return replicas, [variable.numpy().tobytes() for variable in model.optimizer.variables], repr(history.history)


wanted = trained("whole")
try:
    trained("broken", Breaking())
except InterruptedError:
    print(trained("broken") == wanted)
"""


def test_replicas_get_back_statistics_and_metrics_of_their_own(tmp_path: Path) -> None:
    """Under MirroredStrategy, where the value of a moving statistic is the first replica's."""
    done = subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path)], env=environment(), capture_output=True, text=True
    )
    assert done.stdout.split() == ["True"], done.stdout + done.stderr[-3000:]
