"""What the ranks tell each other of each step, and what follows from it: a pure function."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Rows = npt.NDArray[np.int64]


class State(IntEnum):
    """Of a rank's part of a step."""

    READY = 0
    CLOSED = 1  # this rank reads no further
    FAILED = 2  # its stream raised, or gave nothing in time


@dataclass(frozen=True)
class Word:
    """What a rank says of its part of a step.

    Attributes:
        state: a `State`.
        session: how often this sequence's streams were opened before.
        epoch: of the step.
        step: in the epoch.
        count: real samples in this rank's part.
        mark: of the first item of the step, where all ranks draw the same stream; else 0.
        kind: digest of what items are like; 0 if this rank has seen none.
    """

    state: int
    session: int
    epoch: int
    step: int
    count: int = 0
    mark: int = 0
    kind: int = 0

    def row(self) -> Rows:
        """As it travels: int64, shape (1, fields)."""
        return np.array([astuple(self)], np.int64)


WORD_LENGTH = len(fields(Word))


def words_of(rows: Rows) -> list[Word]:
    """The words of all ranks."""
    return [Word(*map(int, row)) for row in rows]


class Gather(Protocol):
    """How the rows of all ranks come together, in the order of the ranks; called by one thread of each rank."""

    def __call__(self, array: npt.NDArray[Any], /) -> npt.NDArray[Any]:
        """Rows of all ranks.

        Args:
            array: rows of this rank, of the same shape and type on all.
        """


@dataclass(frozen=True)
class Verdict:
    """What follows for a step.

    Attributes:
        counts: real samples of each rank, if the step takes place; else None.
        last: whether the epoch ends here, after the step if it takes place.
        closed: whether some rank reads no further.
        wrong: what is wrong, for people; None if nothing is.
        texts: whether the ranks have to tell each other more: what failed, or how their items differ.
    """

    counts: tuple[int, ...] | None = None
    last: bool = False
    closed: bool = False
    wrong: str | None = None
    texts: bool = False


def decide(words: Sequence[Word], local_batch: int, drop: bool, sharded: bool, most_steps: int | None) -> Verdict:
    """What follows from the words of all ranks; the same on all.

    Args:
        words: of all ranks, in their order.
        local_batch: samples in a rank's part of a full step.
        drop: whether a step that is not full is left out.
        sharded: whether each rank has a stream of its own.
        most_steps: in an epoch; None: as many as there are.
    """
    if any(word.state == State.FAILED for word in words):
        return Verdict(texts=True)
    if any(word.state == State.CLOSED for word in words):
        return Verdict(closed=True)
    places = {(word.session, word.epoch, word.step) for word in words}
    if len(places) > 1:
        at = ", ".join(f"rank {rank} at epoch {w.epoch}, step {w.step}" for rank, w in enumerate(words))
        return Verdict(wrong=f"the ranks do not draw the same steps: {at}; call fit and evaluate alike on all ranks")
    if len({word.kind for word in words if word.kind}) > 1:
        return Verdict(texts=True)
    epoch, step = words[0].epoch, words[0].step
    if not sharded and len({word.mark for word in words}) > 1:
        other = next(rank for rank, word in enumerate(words) if word.mark != words[0].mark)
        return Verdict(
            wrong=f"the stream of rank {other} is not that of rank 0: the first item of step {step} of epoch {epoch} "
            "differs; make the streams alike (same seed, same order), or, if each rank's stream is a part of its own, "
            "let make take rank and world_size, or say sharded=True"
        )
    counts = tuple(word.count for word in words)
    if step == 0 and not sum(counts):
        return Verdict(wrong=f"the stream has no items in epoch {epoch}")
    if step == 0 and sharded and not min(counts):
        return Verdict(wrong=f"rank {counts.index(0)}: its stream has no items in epoch {epoch}")
    full = min(counts) == local_batch
    if not sum(counts) or (drop and not full):
        if step == 0:
            return Verdict(
                wrong=f'remainder="drop" leaves no step in epoch {epoch}: the ranks have {list(counts)} samples for '
                f'the first, of {local_batch} each; lower device_batch or use remainder="weight"'
            )
        return Verdict(last=True)
    return Verdict(counts=counts, last=not full or step + 1 == most_steps)
