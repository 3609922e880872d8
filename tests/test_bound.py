"""The sentence that says what bounds a training."""

from __future__ import annotations

import time
from dataclasses import replace

import keras
import numpy as np
import pytest

from dist_loader import ReaderSequence, init
from dist_loader.training.bound import Waits, what_bounds

# 1,000 images trained in 10 s; each took 30 ms of one of two threads.
WAITS = Waits(3, 10, 7.5, 7.5, reading=1, decoding=29, ring_full=0, samples=1000, trained=1000, threads=2, requests=2)


def test_the_threads_that_would_feed_the_device() -> None:
    """It computed for 2.5 s, so 400 images/s need 12 threads of 30 ms each."""
    sentence = what_bounds(WAITS)
    assert "input-bound: rank 3 waited for input 75% of the time" in sentence
    assert "29 ms of decoding" in sentence
    assert "12 threads would feed this device (it has 2)" in sentence


def test_slow_storage_is_told_from_slow_decoding() -> None:
    assert "20 ms of reading" in what_bounds(replace(WAITS, reading=20, decoding=10))
    assert "450 ms of reading" in what_bounds(replace(WAITS, reading=450))


def test_far_away_files_want_requests_and_not_threads() -> None:
    """400 images/s of 62 ms each are 25 at once; those that decode keep up."""
    far = replace(WAITS, reading=60, decoding=2, requests=8)
    assert "; 25 requests at once would feed this device (it has 8)" in what_bounds(far)
    assert "would feed" not in what_bounds(replace(far, requests=32))
    slower_to_decode = replace(WAITS, reading=60, decoding=29, requests=32)  # of each thread 14.5 s, of each request 2
    assert "29 ms of decoding" in what_bounds(slower_to_decode)
    assert "; 12 threads would feed this device (it has 2)" in what_bounds(slower_to_decode)
    slow_to_decode = what_bounds(replace(WAITS, reading=1, decoding=29, requests=32))
    assert "; 12 threads would feed this device (it has 2)" in slow_to_decode


def test_a_stream_that_is_drawn_too_slowly_wants_no_threads() -> None:
    stream = replace(WAITS, reading=9, decoding=1, requests=0)
    assert what_bounds(stream, "samples").endswith(
        "9 ms of reading for each of its samples; one thread draws a stream, what several can do belongs in map"
    )
    assert "; 12 threads would feed this device (it has 2)" in what_bounds(replace(stream, decoding=29))


def test_fewer_requests_than_threads_are_what_there_is_too_little_of() -> None:
    few = replace(WAITS, reading=25, decoding=4, requests=4, threads=8)
    assert "; 12 requests at once would feed this device (it has 4)" in what_bounds(few)


def test_batches_that_were_ready_want_no_threads() -> None:
    assert what_bounds(replace(WAITS, late=1.5)) == (
        "input-bound: rank 3 waited for input 75% of the time, 6 of 7.5 s for TensorFlow to take batches that were "
        "ready; longer epochs or larger batches are taken less often"
    )


def test_samples_that_are_no_images_are_not_called_so() -> None:
    assert "29 ms of decoding for each of its samples" in what_bounds(WAITS, "samples")


class Numbers:
    """Samples that each take some seconds to be read."""

    samples, fingerprint, shape, dtype = 64, "numbers", (4,), np.float32

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def name(self, number: int) -> str:
        return str(number)

    def read(self, numbers: np.ndarray, epoch: int, out: np.ndarray) -> float:
        for place in out:
            time.sleep(self._seconds)
            place[...] = 0
        return len(numbers) * self._seconds


@pytest.mark.parametrize(
    ("seconds", "batch", "words"),
    [(0.005, 8, "ms of reading for each of its samples; "), (0, 32, "were ready; longer epochs")],
)
def test_a_training_tells_slow_reading_from_short_epochs(seconds: float, batch: int, words: str) -> None:
    strategy = init()
    train = ReaderSequence(Numbers(seconds), batch, y=np.zeros(64), threads=2, strategy=strategy)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    summary = strategy.fit(model, train, epochs=5, verbose=0).summary
    (waits,) = summary.waits
    assert 0 <= waits.late <= waits.input <= waits.seconds
    assert words in summary.bound


def test_a_device_that_hardly_waits_is_the_bound() -> None:
    assert what_bounds(replace(WAITS, input=0.1)) == "device-bound: rank 3 waited for input 1.0% of the time"


def test_no_time_no_sentence_about_threads() -> None:
    assert "threads" not in what_bounds(replace(WAITS, input=10))
    assert what_bounds(replace(WAITS, seconds=0, input=0)).startswith("device-bound")
