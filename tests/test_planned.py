"""Several passes over the host batch: what a training sees, what is read for it, and what that takes of memory."""

import threading
import time
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

import dist_loader.frames
from dist_loader.plan import Plan
from dist_loader.readers.image import ImageReader
from dist_loader.sequence.image import ImageSequence
from dist_loader.sequence.planned import PlannedBatches
from dist_loader.world import World

SIZE = (4, 4)


def numbers_in(images):
    """Which samples the rows of a batch show (see the fixture `numbered`)."""
    return (images[:, 0, 0, 0] + 256 * images[:, 0, 0, 1].astype(int)).tolist()


def order(sequence, epoch=0):
    """What the plan says the steps of an epoch show."""
    return [sequence.plan.batch(epoch, step, sequence.world.rank)[0].tolist() for step in range(len(sequence))]


@pytest.fixture
def make(numbered, threads):
    """Makes sequences, which are closed at the end of the test."""
    made = []

    def make(samples, device_batch, host_batch, rank=0, ranks=1, cls=ImageSequence, **kwargs):
        world = World(rank=rank, size=ranks, local_rank=rank, local_size=ranks)
        made.append(cls(numbered(samples), SIZE, device_batch, host_batch, world=world, threads=2, **kwargs))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


@pytest.fixture
def reads(monkeypatch):
    """How often each sample was read."""
    read, counts, lock = ImageReader.read, Counter(), threading.Lock()

    def counted(self, numbers, epoch, out):
        with lock:
            counts.update(numbers.tolist())
        read(self, numbers, epoch, out)

    monkeypatch.setattr(ImageReader, "read", counted)
    return counts


@pytest.mark.parametrize("host_batch", [12, 36, 60, 10**6])
@pytest.mark.parametrize("samples", [60, 57])
def test_an_epoch_shows_its_plan_and_reads_every_sample_once(samples, host_batch, make, reads):
    sequence = make(samples, 6, host_batch, host_passes=3)
    assert len(sequence) == 30
    assert sequence.plan.pass_batches == min(10, host_batch // 12)
    sequence.read_ahead_to(2)
    for epoch in range(2):
        sequence.epoch = epoch
        assert [numbers_in(sequence[step][0]) for step in range(30)] == order(sequence, epoch)
    shown = Counter(np.concatenate(order(sequence, 1)).tolist())
    fill = 6 - samples % 6 if samples % 6 else 0
    assert sorted(shown.values()) == [3] * (samples - fill) + [6] * fill
    assert sum(reads.values()) == 2 * (samples + fill)


def test_later_passes_read_nothing(make, reads):
    sequence = make(60, 6, 36, host_passes=2)
    sequence.read_ahead_to(1)
    first = [numbers_in(sequence[step][0]) for step in range(3)]
    deadline = time.monotonic() + 30
    while sum(reads.values()) < 36 and time.monotonic() < deadline:  # all that the host batch holds
        time.sleep(0.01)
    time.sleep(0.05)
    for step in range(6):  # what is left of the first group's passes
        assert numbers_in(sequence[step][0]) in first
    assert sum(reads.values()) == 36


def test_labels_and_weights_are_those_of_the_images(make):
    sequence = make(57, 6, 36, host_passes=2, sample_weight=np.arange(57) + 1.0)
    for step in range(len(sequence)):
        images, labels, weights = sequence[step]
        numbers = numbers_in(images)
        assert labels.tolist() == sequence.index.labels[numbers].tolist()
        real = sequence.plan.real_samples(step)
        np.testing.assert_allclose(weights[:real], (np.array(numbers[:real]) + 1) * 6 / real)
        assert not weights[real:].any()


def test_all_ranks_see_the_same_groups(make):
    def shown(ranks):
        parts = [make(48, 12 // ranks, 72 // ranks, rank, ranks, host_passes=2) for rank in range(ranks)]
        return [[number for part in parts for number in numbers_in(part[step][0])] for step in range(8)]

    assert shown(1) == shown(2) == shown(3)


@pytest.mark.parametrize("step", range(16))
def test_a_training_may_go_on_at_any_step(step, make, reads):
    """As after a checkpoint in the middle of an epoch, in the middle of a group, in a later pass over it."""
    sequence = make(48, 6, 48, host_passes=2)
    sequence.read_ahead_to(1)
    assert [numbers_in(sequence[at][0]) for at in range(step, 16)] == order(sequence)[step:]
    # From the end of a group's last pass on, its other batches are read ahead, and then passed over.
    assert max(reads.values()) <= (2 if step in (6, 7) else 1)


def test_steps_may_be_asked_for_in_any_order(make):
    sequence = make(48, 6, 24, host_passes=3)
    wanted = order(sequence)
    for step in np.random.default_rng(0).permutation(len(sequence)):
        for _ in range(2):
            assert numbers_in(sequence[int(step)][0]) == wanted[step]


def test_the_memory_is_that_of_the_host_batch(make, monkeypatch):
    made = []
    make_frame = dist_loader.frames.aligned_empty
    monkeypatch.setattr(dist_loader.frames, "aligned_empty", lambda *args: made.append(make_frame(*args)) or made[-1])
    sequence = make(60, 3, 24, host_passes=2)  # 8 frames
    for epoch in range(4):
        sequence.epoch = epoch
        for step in range(len(sequence)):
            sequence[step]
    assert len(made) == 8


def test_what_tensorflow_holds_never_changes(make):
    """Batches of several groups, each of them in TensorFlow's hands twice, while others are read."""
    sequence = make(60, 3, 12, host_passes=2)
    wanted = order(sequence)
    held = [batch[0] for batch in sequence.get_tf_dataset()]
    assert [numbers_in(images.numpy()) for images in held] == wanted


def test_a_batch_cannot_be_changed_for_its_later_passes(make):
    """A subclass that changes what it gets in place would do so once more in each pass."""
    sequence = make(48, 6, 24, host_passes=2)
    with pytest.raises(ValueError, match="read-only"):
        sequence[0][0][...] = 7
    once = make(48, 6, 24)
    once[0][0][...] = 7  # where a batch comes once, it may be


def test_batches_that_come_several_times_are_handed_to_tensorflow_without_a_copy(make, noting):
    sequence = make(48, 6, 24, host_passes=2, cls=noting)
    with tf.device("CPU"):
        assert [np.from_dlpack(images).ctypes.data for images, _ in sequence.get_tf_dataset()] == noting.addresses
    assert len(noting.addresses) == 16


def test_fit_takes_so_many_times_the_steps(make):
    seen = []

    class Watched(keras.Model):
        def train_step(self, data):
            tf.py_function(lambda images: seen.append(numbers_in(images.numpy())), [data[0]], [])
            return {"loss": tf.constant(0.0)}

    model = Watched()
    model.compile()
    sequence = make(48, 6, 24, host_passes=2)
    model.fit(sequence, epochs=2, verbose=0)
    assert seen == order(sequence, 0) + order(sequence, 1)


@pytest.mark.parametrize("local_batch", [1, 7, 64, 3000])
def test_what_is_looked_up_at_once_is_what_the_plan_says(local_batch):
    plan = Plan(50 * local_batch + 1, 2, local_batch)
    planned = PlannedBatches(plan, 1, 8)
    for epoch, number in [(0, 0), (0, 1), (0, plan.batches - 1), (1, 0), (0, 0), (7, 3)]:
        key = planned.key(epoch, number)
        numbers, weights = plan.batch(epoch, number, 1)
        np.testing.assert_array_equal(planned.batch(key)[0], numbers)
        np.testing.assert_array_equal(planned.batch(key)[1], weights)
        assert planned.contents(key)[0] == epoch
