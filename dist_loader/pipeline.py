"""Frames in, filled batches out: the threads behind the host batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from dist_loader.arrays import Arrays, Layout, rows
from dist_loader.errors import ReadTimeout
from dist_loader.frames import Frame, FrameRing

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_loader.readers import Reader
    from dist_loader.readers.clock import DecodeClock

Numbers = npt.NDArray[np.int64]
Contents: TypeAlias = "Callable[[int], tuple[int, Numbers]]"

_JOIN_SECONDS = 5.0
_MOST_STUCK = 8  # threads that hang in a decoder; each holds a frame and whatever it decodes


@dataclass(frozen=True)
class ReadingTimes:
    """Where the time of the reading threads went.

    Attributes:
        samples: read.
        fetching: seconds of all threads together, fetching what is stored.
        decoding: seconds of all threads together, making samples of it.
        ring_full: seconds in which every frame was filled or lent, so that there was nothing to do.
    """

    samples: int = 0
    fetching: float = 0.0
    decoding: float = 0.0
    ring_full: float = 0.0

    def __add__(self, more: ReadingTimes) -> ReadingTimes:
        """Both together."""
        return ReadingTimes(
            self.samples + more.samples,
            self.fetching + more.fetching,
            self.decoding + more.decoding,
            self.ring_full + more.ring_full,
        )


@dataclass(frozen=True, eq=False)
class Place:
    """Where a batch is read to: a frame, the arrays in it, and the numbers of the samples that are in them."""

    frame: Frame
    arrays: Arrays
    numbers: Numbers


class Batch:
    """A batch on its way from sample numbers to a filled frame."""

    def __init__(self, epoch: int, numbers: Numbers, place: Place, parts: list[slice]) -> None:
        self.epoch = epoch
        self.numbers = numbers
        self.place = place
        self.unread = parts
        self.errors: dict[int, Exception] = {}  # by the first position of the part that failed
        self.abandoned = False
        self.ready = threading.Event()
        if not parts:
            self.ready.set()


class Pipeline:
    """Frames in, filled batches out: one thread that schedules, several that read."""

    def __init__(
        self,
        reader: Reader,
        contents: Contents,
        ring: FrameRing,
        layout: Layout,
        threads: int,
        clock: DecodeClock | None,
        rows_at_once: int | None,
    ) -> None:
        self._reader = reader
        self._rows_at_once = rows_at_once
        self._layout = layout
        self._clock = clock
        self._contents = contents
        self._ring = ring
        self._coming: deque[Batch] = deque()  # scheduled and not yet asked for, in the order of keys
        self._asked: Batch | None = None  # asked for last
        self._unfinished: list[Batch] = []  # scheduled and not yet read to the end, given up or not, oldest first
        self._next_scheduled = 0
        self._next_asked = 0
        self._until: int | None = 0  # the first key not to be scheduled
        self._closed = False
        self.times = ReadingTimes()
        self._changed = threading.Condition()
        self._parts: SimpleQueue[tuple[Batch, slice, Place] | None] = SimpleQueue()
        self._at_work: dict[int, Batch] = {}  # by thread
        self._stuck: list[threading.Thread] = []
        self._threads = [self._reading_thread(n) for n in range(threads)]
        self._threads.append(threading.Thread(target=self._schedule, name="dist_loader-schedule", daemon=True))
        for thread in self._threads:
            thread.start()

    def _reading_thread(self, number: int) -> threading.Thread:
        return threading.Thread(target=self._read_parts, name=f"dist_loader-read-{number}", daemon=True)

    def next_batch(self, key: int, until: int | None, timeout: float) -> Batch:
        """The scheduled batch of a key; waits until it is scheduled, not until it is read."""
        with self._changed:
            if key != self._next_asked:
                self._start_again(key)
            self._until = until if until is None else max(until, key + 1)
            self._changed.notify_all()
            while self._closed or not self._coming:
                if self._closed:
                    raise RuntimeError("this host window is closed")
                if self._ring.exhausted():
                    self._ring.grow()
                if not self.wait(self._changed.wait, timeout):
                    raise self.timed_out(self._unfinished[0] if self._unfinished else None, timeout)
            self._next_asked += 1
            self._asked = self._coming.popleft()
            return self._asked

    def _start_again(self, key: int) -> None:
        for batch in self._coming:
            self._abandon(batch)
        self._coming.clear()
        self._next_scheduled = self._next_asked = key

    def timed_out(self, batch: Batch | None, seconds: float) -> ReadTimeout:
        """The error that says what a batch still waits for, or if it has not come that far, what is in its way."""
        advice = "" if batch is None else "; read it on this host, and give a longer timeout if it is slow but well"
        return ReadTimeout(f"no batch within {seconds:g} s: still waiting for {self._missing(batch)}{advice}")

    def waits_for(self) -> str:
        """What the batch that was asked for last still waits for, or the oldest that is not read to the end."""
        batch = self._asked
        if batch is None or batch.ready.is_set():
            batch = next(iter(self._unfinished), None)
        return self._missing(batch)

    def _missing(self, batch: Batch | None) -> str:
        with self._changed:
            unread = [] if batch is None else [int(n) for part in batch.unread for n in batch.numbers[part]]
        return f"{self._reader.name(unread[0])} (and {len(unread) - 1} more)" if unread else "a frame to fill"

    def wait(self, until: Callable[[float], bool], timeout: float) -> bool:
        """Whether something happens within a time, which begins anew when a thread that hangs is given up.

        Raises:
            ReadTimeout: too many threads hang.
        """
        if self._clock is None:
            return until(timeout)
        at_once = min(1.0, self._clock.limit / 4)
        deadline = time.monotonic() + timeout
        while not until(max(0.0, min(at_once, deadline - time.monotonic()))):
            if self._give_up_overdue(self._clock):
                deadline = time.monotonic() + timeout
            elif time.monotonic() >= deadline:
                return False
        return True

    def _give_up_overdue(self, clock: DecodeClock) -> bool:
        """Leave threads alone that decode for too long, and have others do their work; whether there were any."""
        given_up = False
        with self._changed:
            overdue = [] if self._closed else clock.overdue()
            for thread in [thread for thread in self._threads if thread.ident in overdue]:
                batch = self._at_work.get(thread.ident or 0)
                path = None if batch is None else clock.give_up(thread.ident or 0)
                if batch is None or path is None:
                    continue
                given_up = True
                del self._at_work[thread.ident or 0]
                self._stuck = [*(stuck for stuck in self._stuck if stuck.is_alive()), thread]
                self._read_elsewhere(batch)
                at = self._threads.index(thread)
                self._threads[at] = self._reading_thread(at)
                self._threads[at].start()
                if len(self._stuck) > _MOST_STUCK:
                    raise ReadTimeout(
                        f"{len(self._stuck)} threads have each been decoding one image for more than "
                        f"{clock.limit:g} s; the last is {path!r}"
                    )
        return given_up

    def _read_elsewhere(self, batch: Batch) -> None:
        """Go on with a batch in another frame: into this one somebody may write at any time."""
        old, batch.place = batch.place, self._place(self._ring.another(), batch.numbers)
        np.copyto(batch.place.frame, old.frame)
        unread = np.zeros(len(batch.numbers), bool)
        for part in batch.unread:
            unread[part] = True
            self._parts.put((batch, part, batch.place))
        batch.place.numbers[~unread] = old.numbers[~unread]

    def abandon(self, batch: Batch) -> None:
        """Give up a batch that was asked for."""
        with self._changed:
            self._abandon(batch)

    def _abandon(self, batch: Batch) -> None:
        batch.abandoned = True
        if batch.ready.is_set():
            self._ring.give_back(batch.place.frame)

    def hand_over(self, batch: Batch) -> tuple[Arrays, Numbers]:
        """The arrays of a batch that is ready, lent out; or the error of its first sample that failed."""
        if batch.abandoned:
            raise RuntimeError("this host window is closed")
        if batch.errors:
            self._ring.give_back(batch.place.frame)
            raise batch.errors[min(batch.errors)]
        return self._layout.arrays(self._ring.lend(batch.place.frame)), batch.place.numbers

    def _schedule(self) -> None:
        while True:
            asked = time.perf_counter()
            if (frame := self._ring.take()) is None:
                return
            with self._changed:
                waited = time.perf_counter() - asked if not self._unfinished else 0.0
                self.times += ReadingTimes(ring_full=waited)
                while not self._closed and self._until is not None and self._next_scheduled >= self._until:
                    self._changed.wait()
                if self._closed:
                    return
                batch = self._batch(self._next_scheduled, frame)
                self._next_scheduled += 1
                self._coming.append(batch)
                self._changed.notify_all()
                if batch.unread:
                    self._unfinished.append(batch)
                for part in list(batch.unread):
                    self._parts.put((batch, part, batch.place))

    def _batch(self, key: int, frame: Frame) -> Batch:
        try:
            epoch, numbers = self._contents(key)
        except Exception as error:  # noqa: BLE001 (for the one who asks for this batch)
            none = np.empty(0, np.int64)
            batch = Batch(0, none, self._place(frame, none), [])
            batch.errors[0] = error
            return batch
        # Parts are small enough that all threads share the reading of one batch.
        length = self._rows_at_once or max(1, min(16, len(numbers) // (2 * len(self._threads))))
        parts = [slice(at, at + length) for at in range(0, len(numbers), length)]
        return Batch(epoch, numbers, self._place(frame, numbers), parts)

    def _place(self, frame: Frame, numbers: Numbers) -> Place:
        return Place(frame, self._layout.arrays(frame), numbers.copy())

    def _read_parts(self) -> None:
        this_thread = threading.get_ident()
        while (work := self._parts.get()) is not None:
            batch, part, place = work
            self._at_work[this_thread] = batch
            started, waited, fetched, read, failure = time.perf_counter(), self._waited(), self._fetched(), 0, None
            taken: float | None = None
            try:
                if not batch.abandoned and place is batch.place:
                    taken = self._reader.read(place.numbers[part], batch.epoch, rows(place.arrays, part))
                    read = len(batch.numbers[part])
            except Exception as error:  # noqa: BLE001 (for the one who asks for this batch)
                failure = error
            fetching = max(taken or 0.0, self._fetched() - fetched)
            decoding = time.perf_counter() - started - fetching - (self._waited() - waited)
            with self._changed:
                if self._at_work.pop(this_thread, None) is None:
                    return  # it took too long, and another thread has its place
                if place is not batch.place:
                    continue  # this part is read again
                if failure is not None:
                    batch.errors[part.start] = failure
                if read:
                    self.times += ReadingTimes(read, fetching, decoding)
                batch.unread.remove(part)
                if not batch.unread:
                    self._unfinished.remove(batch)
                    batch.ready.set()
                    if batch.abandoned:
                        self._ring.give_back(place.frame)

    def _waited(self) -> float:
        """Seconds that this thread has waited for its turn to decode."""
        return 0.0 if self._clock is None else self._clock.waited()

    def _fetched(self) -> float:
        """Seconds that this thread has fetched files, also those that it could not have."""
        return 0.0 if self._clock is None else self._clock.fetched()

    def close(self) -> None:
        """Stop all threads, and let go who waits for a batch. A read that has begun is waited for, but not for ever."""
        with self._changed:
            self._closed = True
            for batch in self._coming:
                batch.abandoned = True
            if self._asked is not None and not self._asked.ready.is_set():
                self._asked.abandoned = True
                self._asked.ready.set()
            self._changed.notify_all()
        self._ring.close()
        for _ in self._threads:
            self._parts.put(None)
        if threading.current_thread() in self._threads:
            return  # it collects a forgotten window, in the middle of something that the others may wait for
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
