"""The host batch: a window of decoded batches that slides along the plan, ahead of the training."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ReadTimeout
from dist_loader.frames import Frame, FrameRing
from dist_loader.readers import Reader

Numbers = npt.NDArray[np.int64]

_JOIN_SECONDS = 5.0


class HostWindow:
    """Reads batches ahead of their use, in order, with several threads, into a bounded number of frames.

    Batches have keys: the whole numbers, in the order of use. Asking for another key than the next one is allowed
    and makes the window start again from there.

    Args:
        reader: how samples are read.
        numbers: the sample numbers of a batch by its key, int64, shape (batch,).
        batch: samples in a batch.
        frames: how many batches are held in memory.
        threads: how many threads read.
        timeout: seconds after which a batch that is not ready is an error.
    """

    def __init__(
        self, reader: Reader, numbers: Callable[[int], Numbers], batch: int, frames: int, threads: int, timeout: float
    ) -> None:
        self._reader = reader
        self._timeout = timeout
        self._pipeline = _Pipeline(reader, numbers, FrameRing(frames, (batch, *reader.shape), reader.dtype), threads)
        self._one_consumer = threading.Lock()
        # The threads hold the pipeline and not this object, so that it can be forgotten while they run.
        self.close = weakref.finalize(self, self._pipeline.close)

    def get(self, key: int) -> npt.NDArray[Any]:
        """The batch of a key, shape (batch, *reader.shape).

        Its memory is filled again as soon as the last reference to the array is gone, and not before.

        Raises:
            SampleError: a sample of it could not be read.
            ReadTimeout: it was not ready in time.
        """
        with self._one_consumer:
            batch = self._pipeline.next_batch(key, self._timeout)
            if not batch.ready.wait(self._timeout) and self._pipeline.abandon(batch):
                raise ReadTimeout(f"no batch within {self._timeout:g} s: {self._still_reading(batch)}")
            return self._pipeline.hand_over(batch)

    def _still_reading(self, batch: _Batch) -> str:
        names = [self._reader.name(int(number)) for part in batch.unread for number in batch.numbers[part]]
        return f"still reading {names[0]} (and {len(names) - 1} more)" if names else "the plan gave no sample numbers"


class _Batch:
    """A batch on its way from sample numbers to a filled frame."""

    def __init__(self, numbers: Numbers, frame: Frame, parts: list[slice]) -> None:
        self.numbers = numbers
        self.frame = frame
        self.unread = parts
        self.errors: dict[int, Exception] = {}  # by the first position of the part that failed
        self.abandoned = False
        self.ready = threading.Event()


class _Pipeline:
    """Frames in, filled batches out: one thread that schedules, several that read."""

    def __init__(self, reader: Reader, numbers: Callable[[int], Numbers], ring: FrameRing, threads: int) -> None:
        self._reader = reader
        self._numbers = numbers
        self._ring = ring
        self._coming: deque[_Batch] = deque()  # scheduled and not yet asked for, in the order of keys
        self._next_scheduled = 0
        self._next_asked = 0
        self._closed = False
        self._changed = threading.Condition()
        self._parts: SimpleQueue[tuple[_Batch, slice] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._read_parts, name=f"dist_loader-read-{n}", daemon=True) for n in range(threads)
        ]
        self._threads.append(threading.Thread(target=self._schedule, name="dist_loader-schedule", daemon=True))
        for thread in self._threads:
            thread.start()

    def next_batch(self, key: int, timeout: float) -> _Batch:
        """The scheduled batch of a key; waits until it is scheduled, not until it is read."""
        with self._changed:
            if key != self._next_asked:
                self._start_again(key)
            while self._closed or not self._coming:
                if self._closed:
                    raise RuntimeError("this host window is closed")
                if self._ring.exhausted():
                    self._ring.grow()
                if not self._changed.wait(timeout):
                    raise ReadTimeout(f"no frame became free within {timeout:g} s: all threads are stuck in a read")
            self._next_asked += 1
            return self._coming.popleft()

    def _start_again(self, key: int) -> None:
        for batch in self._coming:
            self._abandon(batch)
        self._coming.clear()
        self._next_scheduled = self._next_asked = key

    def abandon(self, batch: _Batch) -> bool:
        """Give up a batch that is late. False if it became ready after all."""
        with self._changed:
            if batch.ready.is_set():
                return False
            self._abandon(batch)
            return True

    def _abandon(self, batch: _Batch) -> None:
        batch.abandoned = True
        if batch.ready.is_set():
            self._ring.give_back(batch.frame)

    def hand_over(self, batch: _Batch) -> Frame:
        """The filled frame of a batch that is ready, lent out; or the error of its first sample that failed."""
        if batch.errors:
            self._ring.give_back(batch.frame)
            raise batch.errors[min(batch.errors)]
        return self._ring.lend(batch.frame)

    def _schedule(self) -> None:
        while (frame := self._ring.take()) is not None:
            with self._changed:
                batch = self._batch(self._next_scheduled, frame)
                self._next_scheduled += 1
                self._coming.append(batch)
                self._changed.notify_all()
                for part in list(batch.unread):
                    self._parts.put((batch, part))

    def _batch(self, key: int, frame: Frame) -> _Batch:
        try:
            numbers = self._numbers(key)
        except Exception as error:
            batch = _Batch(np.empty(0, np.int64), frame, [])
            batch.errors[0] = error
            batch.ready.set()
            return batch
        # Parts are small enough that all threads share the reading of one batch.
        length = max(1, min(16, len(numbers) // (2 * len(self._threads))))
        return _Batch(numbers, frame, [slice(at, at + length) for at in range(0, len(numbers), length)])

    def _read_parts(self) -> None:
        while (work := self._parts.get()) is not None:
            batch, part = work
            try:
                if not batch.abandoned:
                    self._reader.read(batch.numbers[part], batch.frame[part])
            except Exception as error:
                batch.errors[part.start] = error
            with self._changed:
                batch.unread.remove(part)
                if not batch.unread:
                    batch.ready.set()
                    if batch.abandoned:
                        self._ring.give_back(batch.frame)

    def close(self) -> None:
        """Stop all threads; the one that is in the middle of a sample finishes it first."""
        with self._changed:
            self._closed = True
            for batch in self._coming:
                batch.abandoned = True
            self._changed.notify_all()
        self._ring.close()
        for _ in self._threads:
            self._parts.put(None)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_SECONDS)
