"""The threads that draw the items of a stream and map them."""

from __future__ import annotations

import time
import traceback
from contextlib import suppress
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from dist_loader.errors import DistLoaderError, StreamError
from dist_loader.sizes import batches_in_host_batch
from dist_loader.stream.bad import BAD
from dist_loader.stream.batch import Part
from dist_loader.stream.items import Kind, mark_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dist_loader.stream.ahead import Ahead, How
    from dist_loader.stream.source import Source

_END = object()


class _Over(Exception):
    """The epoch has ended on all ranks, or nobody wants to read on."""


class Drawing:
    """Draws the parts of steps from a place on, each as soon as there is room for it.

    Args:
        source: of the items.
        how: they are read.
        ahead: where the parts go.
        start: epoch and step of the first part.
    """

    def __init__(self, source: Source, how: How, ahead: Ahead, start: tuple[int, int]) -> None:
        self._source = source
        self._how = how
        self._ahead = ahead
        self._start = start
        self._work: SimpleQueue[tuple[Part, int, int, Any] | None] = SimpleQueue()
        self._looked_at: dict[int, Any] = {}  # items mapped to see what all are like, by number

    def stop_mapping(self) -> None:
        """Let the threads that map come to their end."""
        for _ in range(self._how.threads):
            self._work.put(None)

    def draw(self) -> None:
        """What the one thread that draws does, until nobody wants to read on."""
        epoch, step = self._start
        try:
            while True:
                with suppress(_Over):
                    self._draw_epoch(epoch, step)
                self._wait_for_end(epoch)
                epoch, step = epoch + 1, 0
                if not self._wanted(epoch):
                    return
        finally:
            try:
                self._source.close()
            except Exception as error:  # noqa: BLE001 (the user's; there is nobody to tell any more)
                traceback.print_exception(error)

    def _wait_for_end(self, epoch: int) -> None:
        with self._ahead.changed:
            self._ahead.changed.wait_for(lambda: self._ahead.closing or epoch in self._ahead.ends)

    def _wanted(self, epoch: int) -> bool:
        """Whether an epoch is to be read; waits until it is, or nothing is any more."""
        with self._ahead.changed:
            self._ahead.changed.wait_for(lambda: self._ahead.closing or epoch < self._ahead.until)
            return not self._ahead.closing

    def _draw_epoch(self, epoch: int, step: int) -> None:
        """Draw the parts of an epoch, to the end of the stream or of the epoch."""
        how = self._how
        share = how.local_batch if how.sharded else how.local_batch * how.ranks
        before = step + (0 if how.steps is None else epoch * how.steps)
        items: Iterator[Any] | None = None
        while how.steps is None or step < how.steps:
            part = self._begin(epoch, step)
            try:
                if items is None:
                    items = self._opened(epoch, before * share)
                ended = self._draw_part(part, items, share)
            except _Over:
                raise
            except BaseException as error:  # noqa: BLE001 (the user's, for all ranks)
                self._fail(part, self._ahead.at, error)
                return
            self._ahead.drawing = "items to be mapped"
            with self._ahead.changed:
                part.drawn = True
                self._ahead.changed.notify_all()
            if ended:
                return
            step += 1

    def _opened(self, epoch: int, first: int) -> Iterator[Any]:
        """The stream of an epoch from an item on; those before are drawn and thrown away."""
        self._ahead.drawing = f"the stream of epoch {epoch} to begin"
        items = self._source.open(epoch, first)
        if self._ahead.kind is None:
            self._look(items, epoch)
        while self._source.drawn < first:
            if self._ahead.leaves(epoch):
                raise _Over
            self._ahead.at = number = self._source.drawn
            self._ahead.drawing = None
            if next(items, _END) is _END:
                break
            self._looked_at.pop(number, None)
        return items

    def _begin(self, epoch: int, step: int) -> Part:
        """A part, as soon as there is room in the host batch."""
        began = time.perf_counter()
        with self._ahead.changed:
            self._ahead.drawing = "room in the host batch"
            while not self._ahead.leaves(epoch) and len(self._ahead.parts) + len(self._ahead.agreed) >= self._room():
                self._ahead.changed.wait()
            self._ahead.add_times(ring_full=time.perf_counter() - began)
            if self._ahead.leaves(epoch):
                raise _Over
            part = Part(epoch, step)
            self._ahead.parts.append(part)
            return part

    def _room(self) -> int:
        """Parts that the host batch holds."""
        if self._ahead.kind is None:
            return self._ahead.least_room
        how = self._how
        held = batches_in_host_batch(how.host_batch, how.local_batch, self._ahead.kind[0].item_bytes)
        return max(held, self._ahead.least_room)

    def _draw_part(self, part: Part, items: Iterator[Any], share: int) -> bool:
        """Draw the items of a step and put those of this rank on their way; whether the stream has ended."""
        how, spent = self._how, 0.0
        self._ahead.drawing = None
        mine = range(share) if how.sharded else range(how.rank * how.local_batch, (how.rank + 1) * how.local_batch)
        for at in range(share):
            if self._ahead.leaves(part.epoch):
                raise _Over
            self._ahead.at = number = self._source.drawn
            began = time.perf_counter()
            item = next(items, _END)
            spent += time.perf_counter() - began
            if item is _END:
                part.ended = True
                break
            if at == 0 and not how.sharded and how.ranks > 1:
                part.mark = mark_of(item)
            mapped = self._looked_at.pop(number, _END)
            if at in mine:
                self._put(part, at - mine.start, number, item, mapped)
        self._ahead.add_times(samples=part.count, fetching=spent)
        return part.ended

    def _look(self, items: Iterator[Any], epoch: int) -> None:
        """Find the first item that can be mapped, on every rank alike, for it shows what all are like.

        What was drawn for that, the budget of bad items and one more at most, is drawn again.
        """
        self._ahead.drawing = None
        self._looked_at = {}
        drawn: list[Any] = []
        while self._ahead.kind is None:
            if self._ahead.leaves(epoch):
                raise _Over
            self._ahead.at = number = self._source.drawn
            item = next(items, _END)
            if item is _END:
                break
            drawn.append(item)
            self._looked_at[number] = mapped = self._how.bad.mapped(item, number, epoch)
            if mapped is not BAD:
                kind = Kind.of(mapped)
                batches_in_host_batch(self._how.host_batch, self._how.local_batch, kind.item_bytes)
                self._ahead.kind = kind, mapped
        if drawn and self._ahead.kind is None:
            raise StreamError(
                self._how.rank,
                None,
                f"rank {self._how.rank}: the stream has {len(drawn)} items in epoch {epoch}, and map raises for all",
            )
        self._source.put_back(drawn)

    def _put(self, part: Part, row: int, number: int, item: Any, mapped: Any) -> None:
        assert self._ahead.kind is not None
        if part.arrays is None:
            part.arrays = self._ahead.kind[0].empty(self._how.local_batch)
        if mapped is not _END or self._how.map is None:
            self._write(part, row, item if mapped is _END else mapped)
        else:
            with self._ahead.changed:
                part.under_way += 1
            self._work.put((part, row, number, item))
        part.count += 1

    def _write(self, part: Part, row: int, mapped: Any) -> None:
        assert self._ahead.kind is not None
        assert part.arrays is not None
        if mapped is not BAD:
            self._ahead.kind[0].write(mapped, part.arrays, row)
            return
        with self._ahead.changed:
            part.bad.add(row)

    def _fail(self, part: Part, number: int, error: BaseException) -> None:
        """Note that an item failed; the other ranks learn of it when it is its turn."""
        if isinstance(error, DistLoaderError):
            found: DistLoaderError = error
        else:
            found = StreamError(self._how.rank, number, f"{type(error).__name__}: {error}")
            found.add_note("".join(traceback.format_exception(error)).rstrip())
        with self._ahead.changed:
            part.failed[number] = found
            part.drawn = True
            self._ahead.changed.notify_all()

    def map(self) -> None:
        """What each of the threads that map does."""
        while (work := self._work.get()) is not None:
            part, row, number, item = work
            began = time.perf_counter()
            try:
                if not self._ahead.leaves(part.epoch) and not part.failed:
                    self._write(part, row, self._how.bad.mapped(item, number, part.epoch))
            except BaseException as error:  # noqa: BLE001 (the user's, for all ranks)
                self._fail(part, number, error)
            del item, work
            self._ahead.add_times(decoding=time.perf_counter() - began)
            with self._ahead.changed:
                part.under_way -= 1
                if part.complete:
                    self._ahead.changed.notify_all()
