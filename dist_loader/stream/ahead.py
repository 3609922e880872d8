"""What is read ahead of a stream: shared by the threads that draw and map, the one that agrees, and the training."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dist_loader.pipeline import ReadingTimes

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_loader.errors import DistLoaderError
    from dist_loader.stream.bad import BadItems
    from dist_loader.stream.batch import Part
    from dist_loader.stream.items import Kind


@dataclass(frozen=True)
class How:
    """How a stream is read.

    Attributes:
        rank: this process's.
        ranks: of all.
        local_batch: samples in a rank's part of a step.
        sharded: whether this rank's stream holds its own part only.
        drop: whether a last step that is not full is left out.
        steps: in an epoch, cut out of one stream; None: each epoch has a stream of its own.
        map: what is applied to this rank's items, in several threads; None: nothing.
        bad: applies it, and knows what becomes of the items for which it raises.
        threads: that map.
        host_batch: samples, or a size such as "4GiB", that are read ahead.
        timeout: seconds that a step may be waited for.
    """

    rank: int
    ranks: int
    local_batch: int
    sharded: bool
    drop: bool
    steps: int | None
    map: Callable[[Any], Any] | None
    bad: BadItems
    threads: int
    host_batch: int | str
    timeout: float


class Ahead:
    """Parts of steps on their way. Whoever changes what others wait for holds `changed` and notifies.

    Attributes:
        changed: the lock.
        kind: of the items, and one of them; None until there is one.
        until: the first epoch that is not to be read before it is asked for.
        parts: begun and not agreed on.
        agreed: and not taken.
        ends: steps of the epochs that have ended.
        error: what all ranks raise at the next step.
        closing: whether nobody wants to read on.
        least_room: parts to hold even if they are more than the host batch.
        drawing: what is waited for, if it is not item `at`.
        at: the item that is drawn.
        times: of the threads.
    """

    def __init__(self, until: int, kind: tuple[Kind, Any] | None) -> None:
        self.changed = threading.Condition()
        self.kind = kind
        self.until = until
        self.parts: deque[Part] = deque()
        self.agreed: deque[Part] = deque()
        self.ends: dict[int, int] = {}
        self.error: DistLoaderError | None = None
        self.closing = False
        self.least_room = 1
        self.drawing: str | None = None
        self.at = 0
        self.times = ReadingTimes()

    def leaves(self, epoch: int) -> bool:
        """Whether nothing of an epoch is to be read any more."""
        return self.closing or self.error is not None or epoch in self.ends

    def add_times(self, samples: int = 0, fetching: float = 0.0, decoding: float = 0.0, ring_full: float = 0.0) -> None:
        """Count what a thread did."""
        with self.changed:
            self.times += ReadingTimes(samples, fetching, decoding, ring_full)
