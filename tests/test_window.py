"""The host window: batches in order, ahead of their use, in bounded memory, from real threads."""

import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dist_loader.frames
import dist_loader.pipeline
import dist_loader.window
from dist_loader.errors import ReadTimeout, SampleError
from dist_loader.frames import FrameRing
from dist_loader.window import HostWindow

BATCH = 6
WIDTH = 16  # elements of a sample


class NumberReader:
    """A sample is its own number, WIDTH times. Samples can be slow, broken, or stuck until they are released."""

    shape = (WIDTH,)
    dtype = np.dtype(np.int64)

    def __init__(self, seconds=None, broken=(), stuck=()):
        self.seconds = seconds or (lambda number: 0)
        self.broken = set(broken)
        self.stuck = {number: threading.Event() for number in stuck}
        self.epochs = {}
        self.began = []
        self.done = []

    def read(self, numbers, epoch, out):
        self.epochs.update(dict.fromkeys(numbers.tolist(), epoch))
        assert out.shape == (len(numbers), WIDTH)
        for number, place in zip(numbers.tolist(), out, strict=True):
            self.began.append(number)
            if number in self.stuck:
                assert self.stuck[number].wait(60)
            seconds = self.seconds(number)
            if seconds:
                time.sleep(seconds)
            if number in self.broken:
                raise SampleError(number, self.name(number), "broken")
            place[: WIDTH // 2] = number
            place[WIDTH // 2 :] = number
            self.done.append(number)

    def name(self, number):
        return f"sample-{number}"

    def release(self):
        for event in self.stuck.values():
            event.set()
        self.stuck = {}


def numbers_of(key):
    return np.arange(key * BATCH, (key + 1) * BATCH)


def expected(key, batch=BATCH):
    return np.repeat(np.arange(key * batch, (key + 1) * batch)[:, None], WIDTH, 1)


def window_of(reader=None, frames=3, threads=3, timeout=60.0, batch=BATCH):
    return HostWindow(
        reader or NumberReader(),
        lambda key: (key // 2, np.arange(key * batch, (key + 1) * batch)),
        batch,
        frames,
        threads,
        timeout,
    )


@pytest.fixture
def frames_alive(monkeypatch):
    """How many frames were made so far, and how many of them are in memory."""
    made = []
    make = dist_loader.frames.aligned_empty

    def counted(shape, dtype):
        frame = make(shape, dtype)
        made.append(weakref.ref(frame))
        return frame

    monkeypatch.setattr(dist_loader.frames, "aligned_empty", counted)
    return lambda: (len(made), sum(frame() is not None for frame in made))


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# ---------------------------------------------------------------------------------------------------------- order


@pytest.mark.parametrize("batch", [1, 5, 64, 100])
@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("readers", [1, 3, 8])
def test_batches_come_in_order_whatever_the_sizes(readers, frames, batch, threads):
    window = window_of(frames=frames, threads=readers, batch=batch)
    for key in range(12):
        got = window.get(key)
        assert got.dtype == np.int64
        assert got.ctypes.data % 64 == 0
        np.testing.assert_array_equal(got, expected(key, batch))
    window.close()


def test_the_reader_is_told_the_epoch_of_each_sample(threads):
    reader = NumberReader()
    window = window_of(reader)
    for key in range(6):
        window.get(key)
    window.close()
    assert all(reader.epochs[number] == number // BATCH // 2 for number in range(6 * BATCH))


def test_the_order_does_not_depend_on_which_sample_is_slow(threads):
    chance = random.Random(0)
    window = window_of(NumberReader(seconds=lambda number: chance.choice([0, 0, 0, 0.003])), threads=8)
    for key in range(40):
        np.testing.assert_array_equal(window.get(key), expected(key))
    window.close()


@settings(max_examples=30)
@given(st.lists(st.integers(0, 40), max_size=25), st.integers(1, 4), st.integers(1, 4))
def test_any_key_may_be_asked_for_at_any_time(keys, frames, readers):
    window = window_of(frames=frames, threads=readers)
    for key in keys:
        np.testing.assert_array_equal(window.get(key), expected(key))
    window.close()


def test_several_consumers_each_get_what_they_asked_for(threads):
    window = window_of(frames=2, threads=4)
    wrong = []

    def consume(first):
        for key in range(first, first + 30):
            if not np.array_equal(window.get(key), expected(key)):
                wrong.append(key)

    consumers = [threading.Thread(target=consume, args=(1000 * n,), daemon=True) for n in range(4)]
    for consumer in consumers:
        consumer.start()
    for consumer in consumers:
        consumer.join(60)
        assert not consumer.is_alive()
    assert wrong == []
    window.close()


# ---------------------------------------------------------------------------------------------- reading ahead, memory


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_it_reads_ahead_as_far_as_its_frames_and_no_further(frames, threads):
    reader = NumberReader()
    window = window_of(reader, frames=frames)
    first = window.get(0)
    held = frames  # the batch in hand and the ones ahead of it
    wait_until(lambda: len(reader.done) >= held * BATCH)
    time.sleep(0.05)
    assert sorted(reader.done) == list(range(held * BATCH))
    del first
    wait_until(lambda: len(reader.done) >= (held + 1) * BATCH)
    time.sleep(0.05)
    assert sorted(reader.done) == list(range((held + 1) * BATCH))
    window.close()


def test_nothing_is_read_before_the_first_batch_is_asked_for(threads):
    reader = NumberReader()
    window = window_of(reader)
    time.sleep(0.05)
    assert reader.began == []
    np.testing.assert_array_equal(window.get(7), expected(7))
    assert min(reader.began) == 7 * BATCH
    window.close()


def test_it_reads_ahead_until_the_end_and_no_further(threads):
    reader = NumberReader()
    window = window_of(reader, frames=8)

    def read_keys():
        wait_until(lambda: len(reader.done) == len(reader.began))
        time.sleep(0.05)
        return sorted({number // BATCH for number in reader.began})

    np.testing.assert_array_equal(window.get(0, until=3), expected(0))
    assert read_keys() == [0, 1, 2]
    np.testing.assert_array_equal(window.get(1, until=5), expected(1))
    assert read_keys() == [0, 1, 2, 3, 4]
    for key in (2, 3, 4, 5, 6):  # to ask for it is to want it read
        np.testing.assert_array_equal(window.get(key, until=5), expected(key))
    assert read_keys() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(window.get(20, until=22), expected(20))
    assert read_keys() == [0, 1, 2, 3, 4, 5, 6, 20, 21]
    np.testing.assert_array_equal(window.get(3, until=4), expected(3))
    assert read_keys() == [0, 1, 2, 3, 4, 5, 6, 20, 21]
    np.testing.assert_array_equal(window.get(4), expected(4))
    wait_until(lambda: len(read_keys()) > 12)
    window.close()


def test_close_ends_a_window_that_has_read_all_it_should(threads):
    window = window_of(frames=8)
    window.get(0, until=1)
    window.close()
    assert threads() == []


def test_serving_starts_before_the_window_is_full(threads):
    reader = NumberReader(stuck=[BATCH])  # the second batch never comes
    window = window_of(reader, frames=8)
    np.testing.assert_array_equal(window.get(0), expected(0))
    reader.release()
    window.close()


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_who_holds_more_batches_than_there_are_frames_is_served(frames, threads, frames_alive):
    window = window_of(frames=frames)
    held = [window.get(key) for key in range(frames + 10)]
    for key, batch in enumerate(held):
        np.testing.assert_array_equal(batch, expected(key))
    made, _ = frames_alive()
    assert made <= frames + 11
    del held[:], batch

    # And the window shrinks back: the frames that were added are gone again.
    for key in range(frames + 10, 3 * frames + 40):
        np.testing.assert_array_equal(window.get(key), expected(key))
    assert frames_alive()[0] == made
    wait_until(lambda: frames_alive()[1] <= frames + 4)  # threads may refer to the last ones that they filled
    window.close()


def test_restarts_errors_and_timeouts_neither_leak_frames_nor_make_new_ones(threads, frames_alive):
    chance = random.Random(1)
    reader = NumberReader(seconds=lambda number: chance.choice([0, 0, 0, 0.002]), broken=range(5, 600, 70))
    window = window_of(reader, frames=3, threads=4)
    errors = 0
    for _ in range(200):
        key = chance.randrange(100)
        for following in range(key, key + chance.randrange(1, 4)):
            try:
                np.testing.assert_array_equal(window.get(following), expected(following))
            except SampleError:
                errors += 1
    assert errors > 10
    assert frames_alive() == (3, 3)
    window.close()


def test_nothing_is_left_of_a_window_that_is_closed_and_forgotten(threads, frames_alive):
    window = window_of(frames=4)
    window.get(0)
    window.close()
    del window
    gc.collect()
    assert frames_alive() == (4, 0)


# --------------------------------------------------------------------------------- no frame is filled while it is held


def stress(window, batches, seed=0, most=12):
    """Ask for batches, hold parts of them for a while, and see whether what is held changes."""
    chance = random.Random(seed)
    held = deque()
    key = 0
    for _ in range(batches):
        if chance.random() < 0.05:
            key = chance.randrange(1000)
        batch = window.get(key)
        assert np.array_equal(batch, expected(key)), f"batch {key} is wrong when it comes"
        kind = chance.randrange(4)
        if kind == 0:
            held.append((batch, expected(key)))
        elif kind == 1:
            held.append((batch[2:4], expected(key)[2:4]))
        elif kind == 2:
            held.append((batch[1:].reshape(-1)[5:], expected(key)[1:].reshape(-1)[5:]))
        del batch
        key += 1
        while len(held) > chance.randrange(most):
            part, wanted = held.popleft()
            assert np.array_equal(part, wanted), f"what was held changed, at batch {key}"
            del part
    while held:
        part, wanted = held.popleft()
        assert np.array_equal(part, wanted), "what was held changed"


@pytest.mark.parametrize(("frames", "readers"), [(1, 1), (2, 8), (4, 3), (16, 8)])
def test_nothing_that_is_held_ever_changes(frames, readers, threads):
    chance = random.Random(2)
    reader = NumberReader(seconds=lambda number: 0.001 if chance.random() < 0.01 else 0)
    window = window_of(reader, frames=frames, threads=readers)
    stress(window, 800, seed=frames)
    window.close()


class GivesBackAtOnce(FrameRing):
    """The naive ring: a frame may be filled again as soon as it is handed out."""

    def lend(self, frame):
        self.give_back(frame)
        return frame


class LendsPlainViews(FrameRing):
    """Nearly right: waits for the view, and NumPy makes slices of it refer to the frame itself."""

    def lend(self, frame):
        view = frame.view()
        self._lent.add(id(frame))
        weakref.finalize(view, self._take_home, self._lent, self._free, frame)
        return view


@pytest.mark.parametrize("ring", [GivesBackAtOnce, LendsPlainViews])
def test_the_stress_above_finds_a_naive_ring(ring, threads, monkeypatch):
    monkeypatch.setattr(dist_loader.window, "FrameRing", ring)
    window = window_of(frames=4, threads=3)
    with pytest.raises(AssertionError, match=r"what was held changed|wrong when it comes"):
        stress(window, 800)
    window.close()


# ---------------------------------------------------------------------------------------------------------- errors


def test_an_error_comes_to_who_asks_for_that_batch_and_the_window_goes_on(threads):
    reader = NumberReader(broken=[2 * BATCH + 1])
    window = window_of(reader, frames=8)
    held = [window.get(0), window.get(1)]
    wait_until(lambda: len(reader.done) >= 6 * BATCH)  # the broken sample was met long ago
    with pytest.raises(SampleError) as caught:
        window.get(2)
    assert (caught.value.sample, caught.value.path, caught.value.reason) == (13, "sample-13", "broken")
    for key in range(3, 20):
        np.testing.assert_array_equal(window.get(key), expected(key))
    with pytest.raises(SampleError):
        window.get(2)
    reader.broken.clear()
    np.testing.assert_array_equal(window.get(2), expected(2))
    np.testing.assert_array_equal(held[1], expected(1))
    window.close()


@pytest.mark.parametrize("readers", [1, 2, 8])
def test_of_two_errors_in_a_batch_the_first_samples_comes(readers, threads):
    batch = 40
    for slow in (7, 33):  # whichever fails first in time
        reader = NumberReader(seconds=lambda number, slow=slow: 0.05 if number == slow else 0, broken=[7, 33])
        window = window_of(reader, threads=readers, batch=batch)
        with pytest.raises(SampleError) as caught:
            window.get(0)
        assert caught.value.sample == 7
        window.close()


def test_an_error_of_the_plan_comes_to_who_asks_for_that_batch(threads):
    def contents(key):
        if key == 2:
            raise IndexError("no batch 2")
        return 0, numbers_of(key)

    window = HostWindow(NumberReader(), contents, BATCH, 4, 2, 60)
    for key in (0, 1):
        np.testing.assert_array_equal(window.get(key), expected(key))
    with pytest.raises(IndexError, match="no batch 2"):
        window.get(2)
    np.testing.assert_array_equal(window.get(3), expected(3))
    window.close()


@pytest.mark.parametrize("frames", [1, 3])
def test_a_timeout_names_what_it_waits_for_and_the_window_goes_on(frames, threads):
    reader = NumberReader(stuck=[BATCH])
    window = window_of(reader, frames=frames, threads=1, timeout=0.2)
    np.testing.assert_array_equal(eventually(window, 0), expected(0))
    for key in (1, 1, 2):  # 2 comes behind 1 in the only thread
        began = time.monotonic()
        waits_for = r"sample-(6|7|12) \(and \d+ more\)"
        with pytest.raises(ReadTimeout, match=rf"^no batch within 0.2 s: still waiting for {waits_for}; ") as caught:
            window.get(key)
        assert isinstance(caught.value, TimeoutError)
        assert time.monotonic() - began < 20
    reader.release()
    for key in (1, 2, 3):
        np.testing.assert_array_equal(eventually(window, key), expected(key))
    window.close()


def eventually(window, key):
    """The batch of a key from a window with a timeout too short for a busy machine."""
    for _ in range(50):
        try:
            return window.get(key)
        except ReadTimeout:
            continue
    raise AssertionError("50 timeouts")


def test_an_interrupted_wait_does_not_lose_the_frame(threads):
    class Interrupt(BaseException):
        pass

    def interrupt(*_):
        raise Interrupt

    reader = NumberReader(stuck=[0])
    window = window_of(reader, frames=1)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        for _ in range(3):
            timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            with pytest.raises(Interrupt):
                window.get(0)
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    reader.release()
    np.testing.assert_array_equal(window.get(0), expected(0))
    np.testing.assert_array_equal(window.get(1), expected(1))
    window.close()


# ------------------------------------------------------------------------------------------------------------- the end


def test_close_ends_all_threads_and_may_be_called_again(threads):
    window = window_of(threads=5)
    assert len(threads()) == 6
    held = window.get(0)
    window.close()
    assert threads() == []
    window.close()
    np.testing.assert_array_equal(held, expected(0))
    with pytest.raises(RuntimeError, match="closed"):
        window.get(1)


def test_a_window_that_was_never_used_closes(threads):
    window_of().close()
    assert threads() == []


def test_a_forgotten_window_ends_its_threads(threads):
    window = window_of(NumberReader(seconds=lambda number: 0.01), threads=5)
    held = window.get(0)[2:]
    assert len(threads()) == 6
    del window
    gc.collect()
    assert threads() == []
    np.testing.assert_array_equal(held, expected(0)[2:])


def test_a_window_that_its_own_thread_collects_ends_its_threads(threads):
    forgotten = threading.Event()

    def contents(key):
        if forgotten.is_set():
            gc.collect()
        return 0, numbers_of(key)

    gc.disable()
    try:
        window = HostWindow(NumberReader(), contents, BATCH, 4, 8, 60)
        batch = window.get(0)
        cycle = [window]
        cycle.append(cycle)
        gone = weakref.ref(window)
        del window, cycle
        assert gone() is not None
        forgotten.set()
        del batch  # now there is a frame to fill
        wait_until(lambda: gone() is None)
    finally:
        gc.enable()


def test_close_waits_for_who_is_in_the_middle_of_a_sample_and_wakes_who_waits_for_a_batch(threads):
    reader = NumberReader(stuck=[0])
    window = window_of(reader, threads=2)
    ended = []

    def consume():
        try:
            ended.append(window.get(0))
        except BaseException as error:
            ended.append(error)

    consumer = threading.Thread(target=consume, daemon=True)
    consumer.start()
    wait_until(lambda: reader.began)
    threading.Timer(0.1, reader.release).start()
    window.close()
    assert threads() == []
    consumer.join(30)
    assert len(ended) == 1


def test_close_does_not_wait_for_ever_for_readers_that_are_stuck(threads, monkeypatch):
    monkeypatch.setattr(dist_loader.pipeline, "_JOIN_SECONDS", 0.2)
    reader = NumberReader(stuck=range(1000))
    window = window_of(reader, frames=20, threads=8, timeout=0.1)
    with pytest.raises(ReadTimeout):
        window.get(0)
    wait_until(lambda: len(reader.began) == 8)
    began = time.monotonic()
    window.close()
    assert time.monotonic() - began < 1.5  # not once for each thread
    reader.release()


PROGRAM = textwrap.dedent("""
    import sys, time
    import numpy as np
    from dist_loader.window import HostWindow

    class Slow:
        shape, dtype = (1000,), np.dtype(np.uint8)
        def read(self, numbers, epoch, out):
            time.sleep({seconds})
            out[:] = 1
        def name(self, number):
            return str(number)

    window = HostWindow(Slow(), lambda key: (0, np.arange(8) + 8 * key), 8, 50, 8, 60)
    batch = window.get(0)
    kept = [batch[1:], window]
    {end}
""")


@pytest.mark.parametrize(
    ("end", "code"), [("pass", 0), ("sys.exit(3)", 3), ("raise KeyError('x')", 1), ("del kept, batch, window", 0)]
)
@pytest.mark.parametrize("seconds", [0, 0.02])
def test_a_program_ends_at_once_while_it_reads_ahead(end, code, seconds):
    program = PROGRAM.format(end=end, seconds=seconds)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == code
    assert ("KeyError" in ended.stderr) == ("KeyError" in end)
    assert "Fatal" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


# -------------------------------------------------------------------------------------------------------- deadlocks


@pytest.mark.parametrize("seed", range(4))
def test_random_timing_never_ends_in_a_deadlock(seed, threads):
    """Restarts, slow and broken samples, batches held: all at once. A deadlock would be a ReadTimeout."""
    chance = random.Random(seed)
    reader = NumberReader(
        seconds=lambda number: chance.choice([0] * 30 + [0.0005, 0.003]), broken=range(17, 10**4, 151)
    )
    window = window_of(reader, frames=1 + seed, threads=8, timeout=30)
    held = deque()
    keys = itertools.count()
    for _ in range(600):
        if chance.random() < 0.1:
            keys = itertools.count(chance.randrange(1000))
        key = next(keys)
        try:
            batch = window.get(key, until=chance.choice([None, key, key + 2]))
        except SampleError as error:
            assert error.sample in reader.broken
            continue
        assert np.array_equal(batch, expected(key))
        held.append(batch)
        del batch
        while len(held) > chance.randrange(6):
            held.popleft()
        if chance.random() < 0.1:
            time.sleep(0.001)
    window.close()


def test_many_windows_come_and_go(threads):
    for number in range(40):
        window = window_of(frames=2, threads=4)
        np.testing.assert_array_equal(window.get(number), expected(number))
        if number % 2:
            window.close()
        del window
    gc.collect()
    assert threads() == []
