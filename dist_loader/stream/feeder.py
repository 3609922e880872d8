"""Reads a stream ahead of the training, and agrees with the other ranks on every step.

One thread draws (a generator allows no more), several map, one agrees. A step is agreed on when all ranks have their
parts of it; which rank has how many samples decides whether the epoch goes on. So all ranks take the same steps,
and a stream that ends, or fails, on one of them ends the epoch, or the training, on all at the same step.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.errors import ConfigError, DistLoaderError, ReadTimeout, StreamError
from dist_loader.stream.ahead import Ahead
from dist_loader.stream.drawing import Drawing
from dist_loader.stream.vote import State, Verdict, Word, decide, words_of

if TYPE_CHECKING:
    from dist_loader.pipeline import ReadingTimes
    from dist_loader.stream.ahead import How
    from dist_loader.stream.batch import Part
    from dist_loader.stream.items import Kind
    from dist_loader.stream.source import Source
    from dist_loader.stream.vote import Gather

_log = logging.getLogger("dist_loader")

_TEXT_BYTES = 1000  # of what a rank says in words
_JOIN_SECONDS = 5.0
_FOR_THE_OTHERS = 30.0  # seconds that they get to say that they have timed out


class Feeder:
    """Parts of steps, from a place on.

    Args:
        source: of the items.
        how: they are read.
        gather: how ranks exchange words and, if something is wrong, texts.
        session: how often the sequence read before.
        start: epoch and step of the first part.
        until: the first epoch that is not to be read before it is asked for.
        kind: of the items and one of them, if known from before.
    """

    def __init__(
        self,
        source: Source,
        how: How,
        gather: tuple[Gather, Gather],
        session: int,
        start: tuple[int, int],
        until: int,
        kind: tuple[Kind, Any] | None,
    ) -> None:
        self._how = how
        self._words, self._texts = gather
        self._session = session
        self._start = start
        self._next_agreed = self._next_taken = start
        self.last_counts: dict[int, tuple[int, ...]] = {}  # real samples of the ranks, in an epoch's last step
        self._overdue: str | None = None
        self._telling = False
        self._ahead = Ahead(until, kind)
        self._drawing = Drawing(source, how, self._ahead, start)
        jobs = [(self._drawing.draw, "draw"), (self._agree, "agree")]
        if how.map is not None:
            jobs += [(self._drawing.map, f"map-{number}") for number in range(how.threads)]
        self._threads = [
            threading.Thread(target=job, name=f"dist_loader-stream-{name}", daemon=True) for job, name in jobs
        ]
        for thread in self._threads:
            thread.start()

    @property
    def kind(self) -> tuple[Kind, Any] | None:
        """Of the items, and one of them; None until there is one."""
        return self._ahead.kind

    @property
    def times(self) -> ReadingTimes:
        """Where the time of the threads went."""
        return self._ahead.times

    # --- for whoever trains ----------------------------------------------------------------------------------------

    def stands_at(self, epoch: int, step: int) -> bool:
        """Whether the part that is taken next is that of a step, or the one after an epoch that has just so many."""
        at = self._next_taken
        return at == (epoch, step) or (at == (epoch + 1, 0) and self._ahead.ends.get(epoch) == step)

    def read_ahead_to(self, epochs: int) -> None:
        """Read ahead to the end of so many epochs."""
        with self._ahead.changed:
            self._ahead.until = max(self._ahead.until, epochs)
            self._ahead.changed.notify_all()

    def known_steps(self, epoch: int) -> int | None:
        """Steps of an epoch; None if they are not known yet."""
        return self._ahead.ends.get(epoch)

    def hold_at_least(self, parts: int) -> None:
        """Hold so many parts even if they are more than the host batch, for they are asked for together."""
        with self._ahead.changed:
            self._ahead.least_room = max(self._ahead.least_room, parts)
            self._ahead.changed.notify_all()

    def wait(self, epoch: int, step: int, bounded: bool = True) -> bool:
        """Whether an epoch has a step; waits until that is agreed on.

        Args:
            epoch: from 0.
            step: in the epoch, from 0.
            bounded: whether to give up at the time limit; not if nobody trains on the step yet.

        Raises:
            StreamError: no, for the stream of a rank failed there.
            ReadTimeout: it took too long.
            ConfigError: the ranks' streams do not go together, or there is nothing in them.
        """
        began = time.monotonic()
        self.read_ahead_to(epoch + 1)
        with self._ahead.changed:
            while True:
                if epoch in self._ahead.ends:
                    return step < self._ahead.ends[epoch]
                if (epoch, step) < self._next_agreed:
                    return True
                if self._ahead.error is not None:
                    raise self._ahead.error
                if self._ahead.closing:
                    raise ReadTimeout(f"rank {self._how.rank}: the stream was closed while it was waited for")
                if bounded:
                    self._check_time(time.monotonic() - began, epoch, step)
                self._ahead.changed.wait(min(1.0, self._how.timeout / 4))

    def first_kind(self) -> tuple[Kind, Any]:
        """What items are like, and one of them; waits for the first.

        Raises:
            As `wait`.
        """
        if self._ahead.kind is None:
            self.wait(*self._start)
        if self._ahead.kind is None:
            raise ConfigError(f"rank {self._how.rank}: the stream has no items where the training goes on")
        return self._ahead.kind

    def _check_time(self, seconds: float, epoch: int, step: int) -> None:
        """Give up a step that is waited for, here or, where it is their part that lacks, on the other ranks."""
        if seconds < self._how.timeout:
            return
        if not self._telling and self._overdue is None:
            self._overdue = f"nothing within {self._how.timeout:g} s: still waiting for {self.lacks()}"
            self._ahead.changed.notify_all()
        elif seconds > self._how.timeout + _FOR_THE_OTHERS:
            raise ReadTimeout(
                f"rank {self._how.rank}: step {step} of epoch {epoch} was not agreed on within {seconds:.0f} s: still "
                f"waiting for {'the other ranks' if self._telling else self.lacks()}"
            )

    def waits_for(self) -> str | None:
        """What the next step waits for on this rank; None if it waits for other ranks."""
        return None if self._telling else self.lacks()

    def lacks(self) -> str:
        """What this rank's part of the next step still waits for."""
        return self._ahead.drawing or f"item {self._ahead.at} of the stream"

    def take(self, epoch: int, step: int) -> tuple[Any, ...]:
        """What Keras gets at a step that is agreed on; steps are taken in order."""
        with self._ahead.changed:
            assert self._ahead.agreed, f"step {step} of epoch {epoch} is not agreed on"
            part = self._ahead.agreed.popleft()
            assert (part.epoch, part.step) == (epoch, step), "steps are taken in order"
            self._next_taken = (epoch + 1, 0) if self._ahead.ends.get(epoch) == step + 1 else (epoch, step + 1)
            self._ahead.changed.notify_all()
        self._how.bad.note_rows(epoch, step, part.bad)
        kind, example = self.first_kind()
        return part.for_keras(kind, example, self._how.local_batch)

    def close(self) -> None:
        """Read no further, and let the other ranks know; what is under way is waited for, but not for ever."""
        with self._ahead.changed:
            self._ahead.closing = True
            self._ahead.changed.notify_all()
        self._drawing.stop_mapping()
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    # --- the thread that agrees ------------------------------------------------------------------------------------

    def _agree(self) -> None:
        try:
            going = True
            while going:
                going = self._agree_on_next()
        except BaseException as error:  # noqa: BLE001 (the other ranks are gone)
            self._end_with(
                error
                if isinstance(error, DistLoaderError)
                else ReadTimeout(f"rank {self._how.rank}: the ranks could not agree on a step: {error}")
            )

    def _agree_on_next(self) -> bool:
        """Speak to the other ranks once; whether there is more to speak about."""
        (epoch, step), ahead = self._next_agreed, self._ahead
        with ahead.changed:
            ahead.changed.wait_for(lambda: ahead.closing or self._overdue or (ahead.parts and ahead.parts[0].complete))
            part = ahead.parts[0] if ahead.parts and ahead.parts[0].complete else None
            failed = None if part is None else next(iter(sorted(part.failed.items())), None)
            if ahead.closing:
                state, part, failed = State.CLOSED, None, None
            elif part is None or failed is not None:
                state = State.FAILED
            else:
                state = State.READY
            self._telling = True
            if state is State.READY:
                self._overdue = None
        kind = 0 if ahead.kind is None else ahead.kind[0].digest
        count, mark = (0, 0) if part is None else (part.count, part.mark)
        word = Word(state, self._session, epoch, step, count, mark, kind)
        rows = words_of(np.asarray(self._words(word.row()), np.int64))
        verdict = decide(rows, self._how.local_batch, self._how.drop, self._how.sharded, self._how.steps)
        with ahead.changed:
            self._telling = False
        if verdict.texts:
            self._end_with(self._error_of_all(rows, None if failed is None else failed[1]))
        elif verdict.wrong is not None:
            self._end_with(ConfigError(verdict.wrong))
        elif verdict.closed:
            who = ", ".join(str(rank) for rank, word in enumerate(rows) if word.state == State.CLOSED)
            self._end_with(ReadTimeout(f"no step {step} of epoch {epoch}: rank {who} reads no further"))
        else:
            assert part is not None
            self._go_on(part, verdict)
            return True
        return False

    def _go_on(self, part: Part, verdict: Verdict) -> None:
        with self._ahead.changed:
            if verdict.counts is not None:
                self._ahead.parts.popleft()
                self._ahead.agreed.append(part)
            if verdict.last:
                steps = part.step + (verdict.counts is not None)
                self._ahead.ends[part.epoch] = steps
                self.last_counts[part.epoch] = verdict.counts or (self._how.local_batch,) * self._how.ranks
                self._warn_of_rest(part)
                self._ahead.parts.clear()
                self._next_agreed = part.epoch + 1, 0
                if self._next_taken == (part.epoch, steps):
                    self._next_taken = self._next_agreed
            else:
                self._next_agreed = part.epoch, part.step + 1
            self._ahead.changed.notify_all()

    def _warn_of_rest(self, last: Part) -> None:
        """Say that another rank's stream ended first."""
        how, counts = self._how, self.last_counts[last.epoch]
        if how.sharded and how.steps is None and not last.ended:
            short = ", ".join(str(rank) for rank, count in enumerate(counts) if count < how.local_batch)
            _log.warning(
                "rank %d: epoch %d ended with the stream of rank %s; of this rank's, the items from %d on were not "
                "trained on",
                how.rank,
                last.epoch,
                short,
                (last.step + 1) * how.local_batch,
            )

    def _error_of_all(self, rows: list[Word], own: DistLoaderError | None) -> DistLoaderError:
        """The error that all ranks raise: that of the first rank that failed, or how their items differ."""
        failed = [rank for rank, word in enumerate(rows) if word.state == State.FAILED]
        if failed:
            text = str(own) if own is not None else f"rank {self._how.rank}: {self._overdue}"
        else:
            text = "" if self._ahead.kind is None else self._ahead.kind[0].text
        sent = np.frombuffer(text.encode()[:_TEXT_BYTES].ljust(_TEXT_BYTES), np.uint8)[None]
        texts = [row.tobytes().decode(errors="replace").rstrip() for row in self._texts(sent)]
        if not failed:
            other = next(rank for rank, word in enumerate(rows) if word.kind not in (0, rows[0].kind))
            return ConfigError(f"the items of rank {other} are not as those of rank 0: {texts[other]}; {texts[0]}")
        if own is not None and failed[0] == self._how.rank:
            return own
        if rows[failed[0]].state == State.FAILED and own is None and failed[0] == self._how.rank:
            return ReadTimeout(texts[failed[0]])
        return StreamError.told(failed[0], texts[failed[0]])

    def _end_with(self, error: DistLoaderError) -> None:
        with self._ahead.changed:
            self._telling = False
            self._ahead.error = error
            self._ahead.changed.notify_all()
