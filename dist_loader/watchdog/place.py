"""Where a rank is in its training: written by the training, read by the watchdog's thread."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Doing = Literal["preparing", "callbacks", "writing", "first step", "step", "agreeing", "between"]
DOINGS: tuple[Doing, ...] = get_args(Doing)
Stage = Literal["training", "validation", "prediction"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class Place:
    """A place in the course that all ranks run through alike.

    Attributes:
        count: places passed before. Ranks run the same course, so the one with the lowest is the furthest behind.
        stage: of the work.
        epoch: from 0.
        step: of the stage, from 0; -1 before the first.
        doing: "preparing" until the first epoch begins, "callbacks" in Keras's callbacks, "writing" where it waits for
            a checkpoint to be written, "first step" in a step that TensorFlow compiles, "step" in another (drawing its
            batch included), "agreeing" with the other ranks outside of steps, "between" elsewhere.
        since: seconds of `time.monotonic` when it came there.
    """

    count: int = 0
    stage: Stage = "training"
    epoch: int = 0
    step: int = -1
    doing: Doing = "preparing"
    since: float = 0.0


class Notes:
    """A rank's notes of where it is. A note is the write of one attribute: microseconds, and no lock.

    Attributes:
        place: the latest.
        thread: identity of the thread that trains.
        input: what a step (its stage and number) waits for from the loader; None: for nothing.
    """

    def __init__(self, input: Callable[[Stage, int], str | None] | None = None) -> None:  # noqa: A002
        self.place = Place(since=time.monotonic())
        self.thread = threading.get_ident()
        self.input = input

    def mark(self, doing: Doing, stage: Stage | None = None, epoch: int | None = None, step: int | None = None) -> None:
        """Note the next place; what is not given stays."""
        at = self.place
        self.place = Place(
            at.count + 1,
            at.stage if stage is None else stage,
            at.epoch if epoch is None else epoch,
            at.step if step is None else step,
            doing,
            time.monotonic(),
        )

    def mark_compiling(self) -> None:
        """Note that TensorFlow compiles the step that this rank is in. It is no other place: other ranks may not."""
        if self.place.doing == "step":
            self.place = replace(self.place, doing="first step")

    @contextmanager
    def at(self, doing: Doing) -> Iterator[None]:
        """Note that this rank does something else meanwhile, at the same place: other ranks may not do it."""
        before = self.place
        self.place = replace(before, doing=doing, since=time.monotonic())
        try:
            yield
        finally:
            self.place = replace(before, since=time.monotonic())
