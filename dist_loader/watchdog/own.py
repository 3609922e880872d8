"""What the training and the watchdog's thread of one process share."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dist_loader.watchdog.last_words import log_file
from dist_loader.watchdog.look import Look
from dist_loader.watchdog.stack_timer import StackTimer

if TYPE_CHECKING:
    from dist_loader.watchdog.lines import End, State
    from dist_loader.watchdog.verdict import Limits


@dataclass(frozen=True)
class Meeting:
    """What the ranks tell each other before they are watched.

    Attributes:
        rank: this process's.
        hosts: names of the hosts, by rank.
        addresses: of rank 0's host.
        port: that rank 0 listens on.
        token: that a rank has to know.
    """

    rank: int
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    port: int
    token: str

    @property
    def deputy(self) -> int:
        """The rank that speaks when rank 0 cannot: the first on another host, for a whole host may be down."""
        return next(
            (rank for rank, host in enumerate(self.hosts) if host != self.hosts[0]), min(1, len(self.hosts) - 1)
        )


@dataclass
class Own:
    """One rank: where it is, and how it ended.

    Attributes:
        meeting: of the ranks.
        limits: how long what may take.
        look: sees where this rank is.
        stacks: leaves the stack of the thread that trains, when this process stands still.
        end: set once, by the thread that trains.
        ended: when, in seconds of `time.monotonic`.
    """

    meeting: Meeting
    limits: Limits
    look: Look
    stacks: StackTimer
    end: End | None = None
    ended: float = 0.0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _loop: asyncio.AbstractEventLoop | None = None
    _beat: float = field(default_factory=time.monotonic)

    @property
    def between_beats(self) -> float:
        """Seconds from one word to the next."""
        return min(1.0, self.limits.lost / 5, self.limits.stall / 5)

    def begin(self) -> None:
        """Called by the watchdog's thread, in its loop."""
        self._loop = asyncio.get_running_loop()
        if self.end is not None:  # before there was a loop to tell
            self._changed.set()

    def state(self) -> State:
        """Where this rank is now."""
        return self.look.state()

    def set_end(self, end: End) -> None:
        """Called by the thread that trains, at its end."""
        self.ended = time.monotonic()
        self.end = end
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._changed.set)

    def change(self) -> None:
        """Let the loop look again now. For the watchdog's thread."""
        self._changed.set()

    async def beat(self, seconds: float | None = None) -> float:
        """Wait for the next beat or change; for how long this process stood still, if it did, else 0.

        A process that was stopped must not blame others for the silence that it did not hear.
        """
        file = log_file()
        self.stacks.start(self.limits.lost, 2 if file is None else file)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._changed.wait(), self.between_beats if seconds is None else seconds)
        self._changed.clear()
        now = time.monotonic()
        gap, self._beat = now - self._beat, now
        return gap if gap > self.limits.lost / 2 else 0.0
