"""The ring of frames: aligned memory that is not filled again while anybody holds any part of it."""

import gc
import threading

import numpy as np
import pytest

from dist_loader.frames import FrameRing, aligned_empty


def all_frames(ring, at_most=100):
    """Every frame that is free, taken out of the ring, which is then closed."""
    ring.close()
    frames = []
    while (frame := ring.take()) is not None:
        frames.append(frame)
        assert len(frames) <= at_most
    return frames


def is_free(ring, frame):
    """Whether a ring whose other frames are all taken has this one to give. The ring is closed to find out."""
    ring.close()
    taken = ring.take()
    assert taken is None or taken is frame
    return taken is frame


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(1,), (7,), (64,), (3, 5), (2, 3, 5, 3), (4, 224, 224, 3)])
def test_frames_start_at_multiples_of_64_bytes(shape, dtype):
    frames = [aligned_empty(shape, dtype) for _ in range(8)]
    for number, frame in enumerate(frames):
        assert frame.ctypes.data % 64 == 0
        assert frame.shape == shape
        assert frame.dtype == dtype
        assert frame.flags.c_contiguous
        frame[...] = number
    assert [frame.min() for frame in frames] == [frame.max() for frame in frames] == list(range(8))


def test_a_ring_has_the_frames_it_was_asked_for():
    frames = all_frames(FrameRing(3, (2, 5), np.float32))
    assert [frame.shape for frame in frames] == [(2, 5)] * 3
    assert {frame.dtype for frame in frames} == {np.dtype(np.float32)}
    assert not any(np.shares_memory(a, b) for a in frames for b in frames if a is not b)


def test_what_is_lent_is_the_frames_memory_itself():
    ring = FrameRing(1, (4, 3), np.int16)
    frame = ring.take()
    frame[...] = np.arange(12).reshape(4, 3)
    view = ring.lend(frame)
    assert view.ctypes.data == frame.ctypes.data
    assert (view.shape, view.dtype) == (frame.shape, frame.dtype)
    np.testing.assert_array_equal(view, frame)


HOLDERS = {
    "the view": lambda view: view,
    "a slice": lambda view: view[1:3],
    "a row": lambda view: view[2],
    "one column of a slice": lambda view: view[1:3][:, 1],
    "a slice of a slice of a slice": lambda view: view[1:][1:][0, 1:],
    "another shape": lambda view: view.reshape(-1),
    "a slice of another shape": lambda view: view.reshape(2, 2, 3)[1:],
    "the transpose": lambda view: view.T,
    "another type": lambda view: view.view(np.uint8)[4:],
    "an iterator": lambda view: iter(view),
    "a flat iterator": lambda view: view.flat,
    "a buffer": memoryview,
    "a slice of a buffer": lambda view: memoryview(view)[1:],
    "an array of a buffer": lambda view: np.asarray(memoryview(view))[1:],
    "a subclass": lambda view: view.view(np.matrix)[1],
    "DLPack": np.from_dlpack,
    "a list of rows": list,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_a_frame_is_free_when_everything_made_of_it_is_gone_and_not_before(hold):
    for expect_free in (False, True):
        ring = FrameRing(1, (4, 3), np.int32)
        frame = ring.take()
        view = ring.lend(frame)
        assert ring.exhausted()
        holder = hold(view)
        del view
        if expect_free:
            del holder
        assert is_free(ring, frame) == expect_free
        assert ring.exhausted() != expect_free


def test_a_copy_does_not_hold_a_frame():
    ring = FrameRing(1, (4, 3), np.int32)
    frame = ring.take()
    copy = ring.lend(frame)[1:].copy()
    assert is_free(ring, frame)
    assert copy.shape == (3, 3)


def test_a_view_in_a_reference_cycle_comes_back_with_the_garbage_collection():
    ring = FrameRing(1, (4,), np.int32)
    frame = ring.take()
    cycle = [ring.lend(frame)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert is_free(ring, frame)


def test_a_frame_that_is_given_back_is_free():
    ring = FrameRing(1, (4,), np.int32)
    frame = ring.take()
    assert not ring.exhausted()  # it is being filled, and will come back by itself
    ring.give_back(frame)
    assert is_free(ring, frame)


def test_a_frame_may_be_lent_again_and_again():
    ring = FrameRing(2, (4,), np.int32)
    seen = {ring.lend(ring.take()).ctypes.data for _ in range(100)}
    assert len(seen) == 2
    assert len(all_frames(ring)) == 2


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_borrower_may_hold_more_than_all_and_the_ring_shrinks_back(frames):
    ring = FrameRing(frames, (4,), np.int32)
    held = []
    for number in range(frames + 7):
        if ring.exhausted():
            ring.grow()
        frame = ring.take()
        frame[...] = number
        held.append(ring.lend(frame))
    assert [view[0] for view in held] == list(range(frames + 7))
    del held[:]
    for _ in range(frames + 7):
        assert not ring.exhausted()
        ring.lend(ring.take())
    assert len(all_frames(ring)) == frames


def test_a_closed_ring_still_takes_frames_home():
    ring = FrameRing(2, (4,), np.int32)
    view = ring.lend(ring.take())
    assert len(all_frames(ring)) == 1
    del view
    assert len(all_frames(ring)) == 1


def test_close_wakes_who_waits_for_a_frame():
    ring = FrameRing(1, (4,), np.int32)
    ring.take()
    taken = []
    thread = threading.Thread(target=lambda: taken.append(ring.take()), daemon=True)
    thread.start()
    ring.close()
    thread.join(10)
    assert taken == [None]


def test_a_ring_that_is_gone_leaves_its_lent_frames_alone():
    ring = FrameRing(1, (1000,), np.int32)
    frame = ring.take()
    frame[...] = 7
    view = ring.lend(frame)
    del ring, frame
    gc.collect()
    others = [aligned_empty((1000,), np.int32) for _ in range(20)]
    for other in others:
        other[...] = 0
    assert (view == 7).all()
