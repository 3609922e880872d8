"""The sequence: what Keras's model really sees, batch by batch."""

import gc
import itertools
import json
import math
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import dist_loader.window
from dist_loader.errors import ConfigError, ReadTimeout, SampleError
from dist_loader.frames import FrameRing
from dist_loader.index import Index
from dist_loader.readers.image import ImageReader
from dist_loader.sequence.image import ImageSequence
from dist_loader.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1)
SIZE = (4, 4)


def of(rank, size):
    return World(rank=rank, size=size, local_rank=rank, local_size=size)


def numbers_in(images):
    """Which samples the rows of a batch show (see the fixture `numbered`)."""
    images = np.asarray(images)
    assert (images == images[:, :1, :1]).all(), "a row is made of several samples"
    return (images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1].astype(int)).tolist()


def flat(lists):
    return list(itertools.chain.from_iterable(lists))


def order(sequence, epoch):
    """What the plan says the steps of an epoch show."""
    return [sequence.plan.batch(epoch, step, sequence.world.rank)[0].tolist() for step in range(len(sequence))]


@pytest.fixture
def make(numbered, threads):
    """Makes sequences, which are closed at the end of the test."""
    made = []

    def make(samples, device_batch, host_batch=64, world=ALONE, cls=ImageSequence, **kwargs):
        if "strategy" in kwargs:
            world = kwargs.pop("world", None)
        made.append(cls(numbered(samples), SIZE, device_batch, host_batch, world=world, threads=3, **kwargs))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


class Watched(keras.Model):
    """A linear model that notes what its steps really work on."""

    def __init__(self):
        super().__init__()
        self.layer = keras.layers.Dense(2)
        self.trained, self.tested, self.predicted, self.weighted = [], [], [], []

    def call(self, images):
        return self.layer(keras.ops.cast(images[:, 0, 0, :], "float32") / 255.0)

    def note(self, seen, data):
        images, _, weights = keras.utils.unpack_x_y_sample_weight(data)
        tf.py_function(lambda shown: seen.append(numbers_in(shown.numpy())), [images], [])
        if weights is not None:
            tf.py_function(lambda given: self.weighted.append(given.numpy().tolist()), [weights], [])

    def train_step(self, data):
        self.note(self.trained, data)
        return super().train_step(data)

    def test_step(self, data):
        self.note(self.tested, data)
        return super().test_step(data)

    def predict_step(self, data):
        self.note(self.predicted, data)
        return super().predict_step(data)


def compiled(model=None, **kwargs):
    model = model or Watched()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, **kwargs)
    return model


# --------------------------------------------------------------------------------------------------------- its batches


def test_it_is_a_py_dataset_of_the_plans_batches(make):
    sequence = make(samples=60, device_batch=10)
    assert isinstance(sequence, keras.utils.PyDataset)
    assert len(sequence) == sequence.num_batches == 6
    assert sequence.batch_size == 10
    for epoch in (0, 3):
        sequence.epoch = epoch
        assert sequence.epoch == epoch
        assert [numbers_in(images) for images, _ in sequence] == order(sequence, epoch)
    assert sequence.epoch == 3  # looking does not move it


@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("grayscale", 1)])
@pytest.mark.parametrize("size", [(4, 4), (3, 7)])
def test_shapes_and_types(color, channels, size, numbered, threads):
    sequence = ImageSequence(numbered(60), size, 8, 64, world=ALONE, color=color)
    images, labels, weights = sequence[0]
    assert (images.shape, images.dtype) == ((8, *size, channels), np.uint8)
    assert (labels.shape, labels.dtype) == ((8,), np.int32)
    assert (weights.shape, weights.dtype) == ((8,), np.float32)
    assert images.flags.c_contiguous
    assert images.ctypes.data % 64 == 0
    sequence.close()


def test_labels_belong_to_their_images(make):
    sequence = make(samples=60, device_batch=7)
    for batch in sequence:
        images, labels = batch[:2]
        assert labels.tolist() == [number // 30 for number in numbers_in(images)]
        assert labels.tolist() == images[:, 0, 0, 2].tolist()


def test_steps_may_be_asked_for_in_any_order(make):
    sequence = make(samples=60, device_batch=10, host_batch=20)
    wanted = order(sequence, 0)
    for step in (3, 3, 0, 5, 1, -1, -6):
        assert numbers_in(sequence[step][0]) == wanted[step]
    for step in (6, -7):
        with pytest.raises(IndexError, match=f"step {step}"):
            sequence[step]


def test_without_shuffling_the_order_is_that_of_the_index(make):
    sequence = make(samples=60, device_batch=10, shuffle=False)
    assert flat(numbers_in(images) for images, _ in sequence) == list(range(60))


def test_seeds_give_other_orders(make):
    orders = [order(make(samples=60, device_batch=10, seed=seed), 0) for seed in (0, 1, 0)]
    assert orders[0] != orders[1]
    assert orders[0] == orders[2]


@pytest.mark.parametrize(
    ("samples", "device_batch", "remainder", "parts"),
    [
        (60, 10, "weight", [2] * 6),
        (60, 10, "drop", [2] * 6),
        (60, 10, "wrap", [2] * 6),
        (60, 7, "weight", [3] * 9),
        (60, 7, "drop", [2] * 8),
        (60, 7, "wrap", [2] * 9),
        (3, 7, "weight", [3]),
        (3, 7, "wrap", [2]),
    ],
)
def test_weights_come_with_every_batch_if_any_step_needs_them(samples, device_batch, remainder, parts, make):
    sequence = make(samples, device_batch, remainder=remainder)
    assert [len(batch) for batch in sequence] == parts


def test_the_fill_weighs_negative_zero_and_the_real_rows_of_its_batch_more(make):
    sequence = make(samples=60, device_batch=16)
    *whole, last = [weights for _, _, weights in sequence]
    for weights in whole:
        assert weights.tolist() == [1.0] * 16
    assert last.tolist() == [float(np.float32(16 / 12))] * 12 + [0.0] * 4
    assert np.signbit(last).tolist() == [False] * 12 + [True] * 4
    assert numbers_in(sequence[3][0])[:12] == order(sequence, 0)[3][:12]


def test_a_rank_without_a_real_row_has_only_fill(make):
    for rank in range(4):
        _, _, weights = make(samples=3, device_batch=2, world=of(rank, 4))[0]
        assert weights.tolist() == [[1.0, 1.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]][rank]
        assert np.signbit(weights).tolist() == (weights == 0).tolist()


def test_samples_and_classes_may_have_weights_of_their_own(make):
    own = np.linspace(0, 2, 20)
    sequence = make(samples=20, device_batch=8, sample_weight=own, class_weight={1: 10.0})
    for step, (images, labels, weights) in enumerate(sequence):
        real = min(8, 20 - 8 * step)
        wanted = own[numbers_in(images)] * np.where(labels == 1, 10, 1) * 8 / real
        np.testing.assert_allclose(weights[:real], wanted[:real], rtol=1e-6)
        assert weights[real:].tolist() == [0.0] * (8 - real)
        # A real sample of weight 0 is no fill.
        assert np.signbit(weights).tolist() == [False] * real + [True] * (8 - real)
    assert all(len(batch) == 3 for batch in make(samples=20, device_batch=10, class_weight={0: 2.0}))


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize(("samples", "device_batch"), [(60, 5), (60, 7), (3, 2), (1, 1)])
def test_all_ranks_together_see_every_sample_exactly_once(samples, device_batch, world_size, make):
    ranks = [make(samples, device_batch, world=of(rank, world_size)) for rank in range(world_size)]
    assert len({len(sequence) for sequence in ranks}) == 1
    seen = []
    for sequence in ranks:
        sequence.epoch = 2
        for images, _, *weights in sequence:
            real = np.ones(device_batch, bool) if not weights else ~np.signbit(weights[0])
            seen += np.array(numbers_in(images))[real].tolist()
    assert sorted(seen) == list(range(samples))


def test_a_global_batch_is_the_same_for_every_world(make):
    def steps(world_size):
        ranks = [make(60, 24 // world_size, world=of(rank, world_size)) for rank in range(world_size)]
        return [
            (
                flat(numbers_in(batch[0]) for batch in batches),
                np.concatenate([batch[1] for batch in batches]).tolist(),
            )
            for batches in zip(*ranks, strict=True)
        ]

    assert steps(1) == steps(2) == steps(4) == steps(8)


def test_a_larger_global_batch_comes_as_one(make):
    sequence = make(samples=60, device_batch=5, global_batch=20)
    assert len(sequence) == 3
    assert sequence[0][0].shape[0] == sequence.batch_size == 20
    assert order(sequence, 0) == order(make(samples=60, device_batch=20), 0)


def test_random_crops_belong_to_epoch_and_sample_and_not_to_the_rank(tmp_path, threads):
    (tmp_path / "class").mkdir()
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "class" / f"{number:02}.png")
    index = Index.from_directory(tmp_path)

    def seen(size, **kwargs):
        """By epoch and sample, the image; from the ranks of a world."""
        images = {}
        for rank in range(size):
            sequence = ImageSequence(index, (8, 8), 12 // size, world=of(rank, size), crop="random-resized", **kwargs)
            for sequence.epoch in (0, 1):
                numbers, _ = sequence.plan.batch(sequence.epoch, 0, rank)
                images |= {
                    (sequence.epoch, n): image for n, image in zip(numbers.tolist(), sequence[0][0], strict=True)
                }
            sequence.close()
        return images

    one, three = seen(1), seen(3)
    assert one.keys() == three.keys() == set(itertools.product((0, 1), range(12)))
    assert all((one[which] == three[which]).all() for which in one)
    assert not any((one[0, number] == one[1, number]).all() for number in range(12))
    other = seen(1, seed=1)
    assert not any((one[which] == other[which]).all() for which in one)


# ----------------------------------------------------------------------------------------------------- world, settings


@pytest.fixture
def launched(monkeypatch):
    """Sets Open MPI's variables, and no other launcher's."""
    for name in list(os.environ):
        if name.startswith(("HOROVOD_", "OMPI_", "PMI_", "PMIX_", "MPI_", "SLURM_")):
            monkeypatch.delenv(name)

    def set_rank(rank, size):
        for name, value in {"RANK": rank, "SIZE": size, "LOCAL_RANK": rank, "LOCAL_SIZE": size}.items():
            monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", str(value))

    return set_rank


def test_without_a_world_it_is_that_of_the_launcher(launched, make):
    assert make(60, 5, world=None).world == ALONE
    launched(1, 3)
    sequence = make(60, 5, world=None)
    assert sequence.world == of(1, 3)
    assert len(sequence) == 4
    assert numbers_in(sequence[0][0]) == order(make(60, 5, world=of(1, 3)), 0)[0]


@dataclass
class Strategy:
    world: World
    replicas: int


def test_a_strategy_gives_world_and_replicas(make):
    sequence = make(60, 5, strategy=Strategy(of(1, 2), 3))
    assert sequence.world == of(1, 2)
    assert sequence.batch_size == 15
    assert len(sequence) == 2
    assert make(60, 5, strategy=Strategy(of(1, 2), 3), world=of(1, 2)).world == of(1, 2)


def test_a_world_that_contradicts_the_strategy_is_refused(numbered):
    with pytest.raises(ConfigError, match=r"rank=0.*rank=1"):
        ImageSequence(numbered(60), SIZE, 5, 64, strategy=Strategy(of(1, 2), 1), world=of(0, 2))


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"device_batch": 0}, "device_batch must be at least 1, not 0"),
        ({"device_batch": -3}, "device_batch must be at least 1, not -3"),
        ({"device_batch": 2.0}, "device_batch must be a whole number, not 2.0"),
        ({"host_batch": 9}, "host_batch 9 is smaller than one device batch, which needs 10 samples"),
        ({"host_batch": "479B"}, "480 bytes for its 10 samples of 48 bytes"),
        ({"host_batch": "4 gigabytes"}, "not a size: '4 gigabytes'"),
        ({"host_batch": 1.5}, "not 1.5"),
        ({"size": (0, 4)}, r"size must be \(height, width\).*not \(0, 4\)"),
        ({"size": 4}, "not 4"),
        ({"color": "bgr"}, "color must be one of rgb, grayscale, not 'bgr'"),
        ({"crop": "middle"}, "crop must be one of stretch, center, random-resized, not 'middle'"),
        ({"resize": "cubic"}, "resize must be one of nearest, bilinear, area, not 'cubic'"),
        ({"remainder": "pad"}, "remainder must be one of weight, drop, wrap, not 'pad'"),
        ({"remainder": "drop", "device_batch": 64}, "leaves no step"),
        ({"seed": "x"}, "seed must be a whole number, not 'x'"),
        ({"threads": 0}, "threads must be a whole number of at least 1, not 0"),
        ({"threads": True}, "not True"),
        ({"global_batch": 15}, "global_batch 15 must be a multiple of 10"),
        ({"global_batch": 0}, "global_batch must be at least 1, not 0"),
        ({"sample_weight": [1.0]}, r"shape \(60,\)"),
        ({"sample_weight": [-1.0] * 60}, "0 or more"),
        ({"sample_weight": [math.nan] * 60}, "0 or more"),
        ({"class_weight": {2: 1.0}}, "label 2"),
        ({"host_passes": 0}, "host_passes must be a whole number of at least 1, not 0"),
        ({"host_passes": 2.0}, "not 2.0"),
        ({"host_passes": 2, "host_batch": 19}, "two batches or more.*host_batch 19 holds one, of 10 samples"),
    ],
)
def test_a_value_that_cannot_work_is_refused_before_anything_is_read(kwargs, said, numbered, threads):
    with pytest.raises(ConfigError, match=said):
        ImageSequence(numbered(60), **{"size": SIZE, "device_batch": 10, "host_batch": 64, "world": ALONE, **kwargs})
    assert threads() == []


# ---------------------------------------------------------------------------------------------------- what Keras sees


@pytest.mark.parametrize(("samples", "device_batch"), [(60, 5), (60, 7), (3, 7), (7, 7)])
@pytest.mark.parametrize("host_batch", ["fits one", 64])
def test_fit_with_keras_defaults_shows_every_epoch_in_plan_order(samples, device_batch, host_batch, make):
    sequence = make(samples, device_batch, device_batch if host_batch == "fits one" else host_batch)
    model = compiled()
    model.fit(sequence, epochs=3, verbose=0)
    assert model.trained == [batch for epoch in range(3) for batch in order(sequence, epoch)]
    assert sequence.epoch == 3
    if sequence.plan.weighted:
        real = samples % device_batch
        last = [np.float32(device_batch / real)] * real + [0.0] * (device_batch - real)
        assert model.weighted == ([[1.0] * device_batch] * (len(sequence) - 1) + [last]) * 3


def test_a_second_fit_goes_on_where_the_first_ended(make):
    sequence = make(samples=60, device_batch=8)
    model = compiled()
    for _ in range(3):
        model.fit(sequence, epochs=2, verbose=0)
    assert model.trained == [batch for epoch in range(6) for batch in order(sequence, epoch)]


def test_the_epoch_may_be_set_before_fit(make):
    sequence = make(samples=60, device_batch=8)
    model = compiled()
    sequence.epoch = 5
    model.fit(sequence, epochs=2, verbose=0)
    assert model.trained == order(sequence, 5) + order(sequence, 6)


def test_the_epoch_may_be_set_by_a_callback(make):
    sequence = make(samples=60, device_batch=8)
    model = compiled()
    tell = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(sequence, "epoch", 10 * epoch))
    model.fit(sequence, epochs=3, initial_epoch=1, verbose=0, callbacks=[tell])
    assert model.trained == order(sequence, 10) + order(sequence, 20)


@pytest.mark.parametrize("samples", [60, 59])
def test_several_steps_per_execution(samples, make):
    sequence = make(samples, device_batch=6)  # 10 steps, no multiple of 3
    model = compiled(steps_per_execution=3)
    model.fit(sequence, epochs=3, verbose=0)
    assert model.trained == [batch for epoch in range(3) for batch in order(sequence, epoch)]


def test_eager_execution(make):
    sequence = make(samples=20, device_batch=6)
    model = compiled(run_eagerly=True)
    model.fit(sequence, epochs=2, verbose=0)
    assert model.trained == order(sequence, 0) + order(sequence, 1)


def test_steps_per_epoch_cuts_keras_epochs_and_not_ours(make):
    sequence = make(samples=60, device_batch=10)
    model = compiled()
    model.fit(sequence, epochs=4, steps_per_epoch=3, verbose=0)
    assert model.trained == order(sequence, 0) + order(sequence, 1)


def test_validation_sees_every_sample_once_after_each_epoch(make):
    train, valid = make(samples=60, device_batch=8), make(samples=20, device_batch=6, host_batch=6, shuffle=False)
    model = compiled()
    history = model.fit(train, validation_data=valid, epochs=3, verbose=0).history
    assert model.trained == [batch for epoch in range(3) for batch in order(train, epoch)]
    assert model.tested == order(valid, 0) * 3
    assert len(history["val_loss"]) == 3


def test_evaluate_and_predict(make):
    sequence = make(samples=20, device_batch=6, shuffle=False)
    model = compiled()
    for count in (1, 2):
        model.evaluate(sequence, verbose=0)
        assert model.tested == order(sequence, 0) * count
    assert model.predict(sequence, verbose=0).shape == (24, 2)  # with the fill: Keras does not know of it
    assert model.predicted == order(sequence, 0)


def test_a_training_that_is_stopped_in_the_middle_begins_the_epoch_again(make):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    sequence = make(samples=60, device_batch=3)
    model = compiled()
    model.fit(sequence, epochs=2, verbose=0, callbacks=[Stop()])
    assert model.trained == order(sequence, 0)[:2]
    model.fit(sequence, epochs=2, verbose=0)
    assert model.trained[2:] == order(sequence, 0) + order(sequence, 1)


def test_the_epoch_never_depends_on_who_is_faster(make):
    """The pass's last request to the sequence, which finds its end, may come after the next pass has begun."""

    class Slow(ImageSequence):
        def _one_pass(self):
            yield from super()._one_pass()
            time.sleep(0.2)

    sequence = make(samples=20, device_batch=5, cls=Slow)
    model = compiled()
    model.fit(sequence, epochs=4, verbose=0)
    assert model.trained == [batch for epoch in range(4) for batch in order(sequence, epoch)]


def test_a_subclass_may_change_the_batches(make):
    class Augmented(ImageSequence):
        calls = 0

        def __getitem__(self, step):
            images, labels, weights = super().__getitem__(step)
            self.calls += 1
            return {"pixels": images[:, ::-1] / np.float32(255), "number": images[:, 0, 0, 0]}, labels[:, None], weights

    class Takes(Watched):
        def call(self, batch):
            return self.layer(batch["pixels"][:, 0, 0, :])

        def note(self, seen, data):
            tf.py_function(lambda numbers: seen.append(numbers.numpy().tolist()), [data[0]["number"]], [])

    sequence = make(samples=20, device_batch=6, cls=Augmented)
    model = compiled(Takes())
    model.fit(sequence, epochs=2, verbose=0)
    assert model.trained == order(sequence, 0) + order(sequence, 1)
    assert sequence.calls == 8  # each batch once: the one that is looked at first is not read again


def test_data_that_keras_would_ignore_is_refused(make):
    sequence = make(samples=20, device_batch=6)
    model = compiled()
    for kwargs in ({"class_weight": {0: 1.0, 1: 2.0}}, {"sample_weight": np.ones(20)}, {"y": np.ones(20)}):
        with pytest.raises(ConfigError, match=rf"fit\({next(iter(kwargs))}=...\) would be ignored"):
            model.fit(sequence, verbose=0, **kwargs)
    with pytest.raises(ConfigError, match=r"evaluate\(sample_weight=...\) would be ignored"):
        model.evaluate(sequence, sample_weight=np.ones(20), verbose=0)
    assert model.trained == model.tested == []


def test_validation_with_a_sequence_allows_weights_for_other_training_data(make):
    valid = make(samples=20, device_batch=6, shuffle=False)
    model = compiled()
    images, labels = np.zeros((8, *SIZE, 3), np.uint8), np.zeros(8, int)
    model.fit(images, labels, class_weight={0: 1.0, 1: 2.0}, validation_data=valid, verbose=0)
    assert model.tested == order(valid, 0)


def test_plain_fit_under_a_launcher_is_refused(launched, make):
    """It would train every rank for itself, and nobody would notice."""
    launched(1, 2)
    with pytest.raises(ConfigError, match=r"rank 1 of 2.*strategy\.fit"):
        compiled().fit(make(samples=20, device_batch=5, world=None), verbose=0)


def test_plain_fit_with_a_world_by_hand_sees_that_ranks_part(make):
    sequence = make(samples=20, device_batch=3, world=of(1, 2))
    model = compiled()
    model.fit(sequence, epochs=2, verbose=0)
    assert model.trained == order(sequence, 0) + order(sequence, 1)


# ------------------------------------------------------------------------------------------------------------ gradient


@pytest.mark.parametrize("real", [1, 3, 5])
def test_a_filled_batch_moves_the_weights_as_its_real_rows_alone_do(real, make):
    sequence = make(samples=real, device_batch=8)
    filled, alone = compiled(), compiled()
    images, labels, weights = (np.array(part) for part in sequence[0])
    assert np.count_nonzero(weights) == real
    for model in (filled, alone):
        model(images[:1])
    filled.layer.set_weights([np.linspace(-1, 1, 6).reshape(3, 2), np.array([0.5, -0.5])])
    alone.set_weights(filled.get_weights())

    x = images[:real, 0, 0, :] / 255.0
    kernel, bias = filled.layer.get_weights()
    logits = x @ kernel + bias
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    slope = (softmax - np.eye(2)[labels[:real]]) / real
    by_hand = [kernel - 0.1 * x.T @ slope, bias - 0.1 * slope.sum(0)]

    filled.fit(sequence, epochs=1, verbose=0)
    alone.train_on_batch(images[:real], labels[:real])
    for got, keras_says, numpy_says in zip(filled.get_weights(), alone.get_weights(), by_hand, strict=True):
        np.testing.assert_allclose(got, keras_says, atol=1e-6)
        np.testing.assert_allclose(got, numpy_says, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------- bad images


@pytest.fixture
def photos(tmp_path):
    """20 images of which one may be broken and mended."""
    for number in range(20):
        (tmp_path / "ab"[number // 10]).mkdir(exist_ok=True)
        pixels = np.full((8, 8, 3), (number, 0, number // 10), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[number // 10] / f"{number:02}.png")
    return tmp_path


def test_a_broken_image_raises_with_rank_path_and_reason(photos, threads):
    broken = photos / "b" / "13.png"
    broken.write_bytes(broken.read_bytes()[:50])
    for rank in range(2):
        sequence = ImageSequence(Index.from_directory(photos), SIZE, 5, 20, world=of(rank, 2), shuffle=False)
        if rank == 0:
            assert numbers_in(sequence[0][0]) == [0, 1, 2, 3, 4]
            with pytest.raises(SampleError) as caught:
                sequence[1]
            assert str(caught.value).startswith(f"rank 0: cannot read sample 13, {str(broken)!r}: ")
            assert len(str(caught.value).splitlines()) == 1
            assert (caught.value.rank, caught.value.sample, caught.value.path) == (0, 13, str(broken))
        else:
            assert [numbers_in(batch[0])[-1] for batch in sequence] == [9, 19]
        sequence.close()


def test_fit_fails_by_name_and_goes_on_when_the_image_is_mended(photos, threads):
    sequence = ImageSequence(Index.from_directory(photos), SIZE, 4, 8, world=ALONE)
    last = sequence.plan.batch(1, 3, 0)[0][0]  # in the middle of the second epoch
    broken = Path(sequence.index.path(last))
    whole = broken.read_bytes()
    model = compiled()
    model.fit(sequence, epochs=1, verbose=0)
    broken.write_bytes(b"")
    with pytest.raises(tf.errors.OpError) as caught:
        model.fit(sequence, epochs=2, verbose=0)
    assert f"rank 0: cannot read sample {last}, {str(broken)!r}: not an image" in str(caught.value)
    assert isinstance(sequence.failure, SampleError)
    assert sequence.epoch == 1
    trained = len(model.trained)
    assert model.trained == (order(sequence, 0) + order(sequence, 1))[:trained]
    assert trained <= 5 + 3

    broken.write_bytes(whole)
    model.fit(sequence, epochs=2, verbose=0)
    assert model.trained[trained:] == order(sequence, 1) + order(sequence, 2)
    sequence.close()


def test_a_file_that_never_answers_is_a_timeout_that_names_it(photos, threads, monkeypatch):
    stuck, answer = photos / "b" / "15.png", threading.Event()

    def never(read, file, *args):
        if Path(f"/proc/self/fd/{file}").readlink() == stuck:  # as on a network file system whose server is gone
            answer.wait(60)
        return read(file, *args)

    for call in ("read", "preadv"):
        monkeypatch.setattr(os, call, partial(never, getattr(os, call)))
    sequence = ImageSequence(
        Index.from_directory(photos), SIZE, 5, 10, world=of(3, 4), shuffle=False, threads=1, timeout=0.3
    )
    began = time.monotonic()
    with pytest.raises(ReadTimeout) as caught:
        sequence[0]
    assert time.monotonic() - began < 20
    assert str(caught.value).startswith("rank 3: no batch within 0.3 s: still waiting for ")
    assert str(stuck) in str(caught.value)
    answer.set()
    sequence.close()


# ---------------------------------------------------------------------------------------------------- memory, threads


def test_batches_are_handed_to_tensorflow_without_a_copy(make, noting):
    sequence = make(samples=60, device_batch=6, host_batch=18, cls=noting)
    received = []
    for images, _ in sequence.get_tf_dataset():
        with tf.device("CPU"):
            received.append(np.from_dlpack(images).ctypes.data)
    assert received == noting.addresses
    assert len(noting.addresses) == 10
    assert len(set(noting.addresses)) < 10  # and frames were used again


def all_batches(sequence):
    """What the batches of an epoch show at its end, all held by TensorFlow."""
    held = [batch[0] for batch in sequence.get_tf_dataset()]
    return [images.numpy()[:, 0, 0, 0].tolist() for images in held]


def test_what_tensorflow_holds_never_changes(make):
    sequence = make(samples=60, device_batch=3, host_batch=6)
    wanted = order(sequence, 0)
    assert all_batches(sequence) == wanted


def test_the_check_above_finds_a_naive_ring(make, monkeypatch):
    class GivesBackAtOnce(FrameRing):
        def lend(self, frame):
            self.give_back(frame)
            return frame

    monkeypatch.setattr(dist_loader.window, "FrameRing", GivesBackAtOnce)
    sequence = make(samples=60, device_batch=3, host_batch=6)
    wanted = order(sequence, 0)
    assert all_batches(sequence) != wanted


def test_frames_stay_few_over_many_epochs(make, monkeypatch):
    made = []
    make_frame = dist_loader.frames.aligned_empty
    monkeypatch.setattr(dist_loader.frames, "aligned_empty", lambda *args: made.append(make_frame(*args)) or made[-1])
    sequence = make(samples=60, device_batch=6, host_batch=48)  # 8 frames
    model = compiled()
    model.fit(sequence, epochs=8, verbose=0)
    assert len(made) == 8


@pytest.fixture
def samples_read(monkeypatch):
    """Counts how often each sample is read."""
    read = ImageReader.read
    counts = Counter()

    def counted(self, numbers, epoch, out):
        counts.update(numbers.tolist())
        read(self, numbers, epoch, out)

    monkeypatch.setattr(ImageReader, "read", counted)
    return counts


def test_reading_ahead_ends_with_the_next_epoch_or_where_it_is_told_to(make, samples_read):
    for epochs, reads in [(None, 2), (1, 1), (2, 2)]:
        samples_read.clear()
        sequence = make(samples=20, device_batch=5, host_batch=10**6)
        sequence.read_ahead_to(epochs)
        for _ in sequence:
            pass
        deadline = time.monotonic() + 30
        while samples_read != dict.fromkeys(range(20), reads) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert samples_read == dict.fromkeys(range(20), reads)


def test_an_epoch_is_read_once_however_large_the_host_batch_is(make, samples_read):
    sequence = make(samples=20, device_batch=5, host_batch="1GiB")
    sequence.read_ahead_to(3)
    compiled().fit(sequence, epochs=3, verbose=0)
    sequence.close()
    assert samples_read == dict.fromkeys(range(20), 3)


def test_close_ends_the_threads_and_the_next_batch_starts_them_again(make, threads):
    sequence = make(samples=60, device_batch=6)
    assert threads() == []
    wanted = order(sequence, 0)
    for _ in range(2):
        assert numbers_in(sequence[1][0]) == wanted[1]
        assert len(threads()) == 4
        sequence.close()
        sequence.close()
        assert threads() == []


def test_a_forgotten_sequence_ends_its_threads(numbered, threads):
    sequence = ImageSequence(numbered(60), SIZE, 7, 64, world=ALONE)
    model = compiled()
    model.fit(sequence, epochs=1, verbose=0)
    model.evaluate(sequence, verbose=0)
    model.predict(sequence, verbose=0)
    held = sequence[0]
    assert threads() != []
    del sequence
    gc.collect()
    assert threads() == []
    assert len(numbers_in(held[0])) == 7


def test_threads_are_this_ranks_share_of_the_cores(numbered):
    cores = len(os.sched_getaffinity(0))
    for local_size in (1, 2, 1000):
        world = World(rank=0, size=local_size, local_rank=0, local_size=local_size)
        assert ImageSequence(numbered(60), SIZE, 6, 64, world=world).threads == max(1, cores // local_size)
    assert ImageSequence(numbered(60), SIZE, 6, 64, world=ALONE, threads=5).threads == 5


def test_two_sequences_train_and_validate_in_two_threads(make):
    sequences = [make(samples=60, device_batch=6, seed=seed, host_batch=12) for seed in (1, 2)]
    models = [compiled() for _ in sequences]

    def fit(model, sequence):
        model.fit(sequence, epochs=2, verbose=0)

    workers = [threading.Thread(target=fit, args=pair, daemon=True) for pair in zip(models, sequences, strict=True)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert not worker.is_alive()
    for model, sequence in zip(models, sequences, strict=True):
        assert model.trained == order(sequence, 0) + order(sequence, 1)


# ----------------------------------------------------------------------------------------------- programs of their own

MIRRORED = textwrap.dedent("""
    import json, sys
    import keras
    import numpy as np
    import tensorflow as tf

    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)

    from dist_loader.index import Index
    from tests.test_sequence import ALONE, SIZE, ImageSequence, Watched, compiled, order

    index = Index.from_directory(sys.argv[1])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    valid = ImageSequence(index, SIZE, 30, 60, world=ALONE, shuffle=False)
    results = {}
    for name, device_batch in [("a step", 60), ("three steps", 20), ("more than is prefetched", 4)]:
        reads = []

        class Noted(ImageSequence):
            def __getitem__(self, step):
                reads.append((self.epoch, step))
                return super().__getitem__(step)

        train = Noted(index, SIZE, device_batch, 60, world=ALONE)
        with strategy.scope():
            model = compiled()
        model.fit(train, validation_data=valid if name == "three steps" else None, epochs=2, verbose=0)
        reads_in_fit = list(reads)
        model.fit(train, epochs=1, verbose=0)
        results[name] = {
            "trained": model.trained, "tested": model.tested, "reads": reads_in_fit, "epoch": train.epoch,
            "wanted": [order(train, epoch) for epoch in range(3)], "valid": order(valid, 0),
        }
        train.close()
    valid.close()
    print(json.dumps(results))
""")


def run(program, *args):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=Path(__file__).parents[1],
    )


@pytest.mark.distributed  # half a minute: Keras makes iterators for every pass
def test_fit_under_a_mirrored_strategy_shows_every_epoch_once(numbered):
    """Also where an epoch is so short that Keras, building the model, could draw all of it before the first step."""
    ended = run(MIRRORED, numbered(60).root)
    assert ended.returncode == 0, ended.stderr
    for name, got in json.loads(ended.stdout.splitlines()[-1]).items():
        steps = len(got["wanted"][0])
        assert got["epoch"] == 3, name
        # The two replicas note their halves of a batch in any order.
        halves = len(got["trained"]) // (3 * steps)
        trained = [sorted(flat(got["trained"][at : at + halves])) for at in range(0, len(got["trained"]), halves)]
        assert trained == [sorted(batch) for epoch in got["wanted"] for batch in epoch], name
        if got["tested"]:
            assert sorted(flat(got["tested"])) == sorted(2 * flat(got["valid"])), name
        assert got["reads"] == [[epoch, step] for epoch in range(2) for step in range(steps)], name


ENDING = textwrap.dedent("""
    import sys
    from dist_loader.index import Index
    from dist_loader.sequence.image import ImageSequence
    from dist_loader.world import World

    sequence = ImageSequence(Index.from_directory(sys.argv[1]), (64, 64), 2, 60, world=World(0, 1, 0, 1), threads=8)
    iterator = iter(sequence.get_tf_dataset())
    kept = [next(iterator), next(iterator)]
    sys.exit(7)
""")


@pytest.mark.distributed  # beside tests/distributed/test_exit.py
def test_a_program_ends_with_its_exit_code_while_tensorflow_draws_batches(numbered):
    ended = run(ENDING, numbered(60).root)
    assert ended.returncode == 7, ended.stderr
    assert "terminate called" not in ended.stderr
    assert "Traceback" not in ended.stderr
