"""What rank 0 knows of the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dist_loader.watchdog.lines import End, State


@dataclass(frozen=True)
class Seen:
    """What rank 0 knows of a rank.

    Attributes:
        rank: its number.
        host: its host's name.
        state: what it said last, with its seconds counted on.
        silent: seconds since it said something.
        closed: seconds since its connection was closed, None while it is open.
        end: how its training ended, None while it runs.
        ended: seconds since then.
        reached: whether it has connected; if not, nothing is known of it.
    """

    rank: int
    host: str
    state: State = field(default_factory=State)
    silent: float = 0.0
    closed: float | None = None
    end: End | None = None
    ended: float = 0.0
    reached: bool = True

    @property
    def waits_for_input(self) -> bool:
        """Whether it is in a step whose batch has not come, and so does not wait for other ranks."""
        return self.state.doing in ("step", "first step") and bool(self.state.detail)


def furthest_behind(running: Sequence[Seen]) -> list[Seen]:
    """The ranks that the others wait for, or all if they are at the same place.

    All run the same course, so they are those that passed the fewest places; and of those in the same step, the ones
    that have no batch yet, or of those that agree, the one that still writes.
    """
    lowest = min((rank.state.count for rank in running), default=0)
    behind = [rank for rank in running if rank.state.count == lowest]
    return [rank for rank in behind if rank.waits_for_input or rank.state.doing == "writing"] or behind
