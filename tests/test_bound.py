"""The sentence that says what bounds a training."""

from __future__ import annotations

from dataclasses import replace

from dist_loader.training.bound import Waits, what_bounds

# 1,000 images trained in 10 s; each took 30 ms of one of two threads.
WAITS = Waits(3, 10, 7.5, reading=1, decoding=29, ring_full=0, samples=1000, trained=1000, threads=2, requests=2)


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
    slow_to_decode = what_bounds(replace(WAITS, reading=1, decoding=29, requests=32))
    assert "; 12 threads would feed this device (it has 2)" in slow_to_decode


def test_a_device_that_hardly_waits_is_the_bound() -> None:
    assert what_bounds(replace(WAITS, input=0.1)) == "device-bound: rank 3 waited for input 1.0% of the time"


def test_no_time_no_sentence_about_threads() -> None:
    assert "threads" not in what_bounds(replace(WAITS, input=10))
    assert what_bounds(replace(WAITS, seconds=0, input=0)).startswith("device-bound")
