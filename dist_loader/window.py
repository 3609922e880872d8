"""The host batch: a window of decoded batches that slides along the plan, ahead of the training."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from dist_loader.arrays import Layout
from dist_loader.frames import FrameRing
from dist_loader.pipeline import Contents, Numbers, Pipeline, ReadingTimes

if TYPE_CHECKING:
    from dist_loader.readers import Reader
    from dist_loader.readers.clock import DecodeClock


class HostWindow:
    """Reads batches ahead of their use, in order, with several threads, into a bounded number of frames.

    Batches have keys: the whole numbers, in the order of use. Asking for another key than the next one is allowed
    and makes the window start again from there.

    Args:
        reader: how samples are read.
        contents: what a batch holds, by its key: its epoch and its sample numbers, int64, shape (batch,).
        batch: samples in a batch.
        frames: how many batches are held in memory.
        threads: how many threads read.
        timeout: seconds after which a batch that is not ready is an error.
        clock: knows which threads decode one sample for too long. Each is left alone with the frame that it fills,
            another takes its place, and what is not yet read of the batch is read again into another frame.
        rows_at_once: samples that the reader is to be asked for at once; None: as many as suits the threads.
    """

    def __init__(
        self,
        reader: Reader,
        contents: Contents,
        batch: int,
        frames: int,
        threads: int,
        timeout: float,
        clock: DecodeClock | None = None,
        rows_at_once: int | None = None,
    ) -> None:
        self._timeout = timeout
        layout = Layout.of(reader, batch)
        ring = FrameRing(frames, layout.frame_shape, layout.frame_dtype)
        self._pipeline = Pipeline(reader, contents, ring, layout, threads, clock, rows_at_once)
        self._one_consumer = threading.Lock()
        # The threads hold the pipeline and not this object, so that it can be forgotten while they run.
        self.close = weakref.finalize(self, self._pipeline.close)

    def times(self) -> ReadingTimes:
        """Where the time of the reading threads went so far."""
        return self._pipeline.times

    def waits_for(self) -> str | None:
        """What the batch that somebody waits for still waits for; None if nobody waits for one."""
        return self._pipeline.waits_for() if self._one_consumer.locked() else None

    def get(self, key: int, until: int | None = None) -> Any:
        """The batch of a key, shape (batch, *reader.shape); see `get_with_numbers`."""
        return self.get_with_numbers(key, until)[0]

    def get_with_numbers(self, key: int, until: int | None = None) -> tuple[Any, Numbers]:
        """The batch of a key, shape (batch, *reader.shape), and the sample numbers that the reader left, (batch,).

        A reader of several arrays gives a dictionary of them.

        Its memory is filled again as soon as the last reference to it is gone, and not before.

        Args:
            key: which batch.
            until: the first key that is not to be read ahead, for then the training is over; None: no such key.

        Raises:
            SampleError: a sample of it could not be read.
            ReadTimeout: it was not ready in time, or too many threads hang.
        """
        with self._one_consumer:
            batch = self._pipeline.next_batch(key, until, self._timeout)
            ready = False
            try:
                ready = self._pipeline.wait(batch.ready.wait, self._timeout)
            finally:  # also after an interrupt from the keyboard: the frame must come back
                if not ready:
                    self._pipeline.abandon(batch)
            if not ready:
                raise self._pipeline.timed_out(batch, self._timeout)
            return self._pipeline.hand_over(batch)
