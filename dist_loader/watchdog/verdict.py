"""When a job has to end, and who is to be named: a pure function of what is known of the ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dist_loader.watchdog.lines import State
from dist_loader.watchdog.seen import Seen, furthest_behind
from dist_loader.watchdog.words import join, line_of, place_of, ranks_text, table

DIED = "it ended without an error of its own: killed (out of memory?) or crashed"


def silence(seconds: float) -> str:
    """Why a rank may not answer."""
    return f"no word for {seconds:.0f} s: stopped, its host or link down, or Python blocked by a C call"


@dataclass(frozen=True)
class Limits:
    """How long what may take. All in seconds.

    Attributes:
        stall: that the rank furthest behind stays at one place.
        lost: without a word of a rank.
        first: like `stall`, for what comes before the first epoch, and for a first step, in which TensorFlow compiles
            and the first batch is read; and for the ranks to come together.
        gone: that a connection is closed before its rank counts as dead; others may be closing, too. Little, for the
            launcher that saw a rank die ends the others.
        grace: for the other ranks to end by the same error, after one has failed.
        meet: for the ranks to reach rank 0.
    """

    stall: float
    lost: float
    first: float
    gone: float = 0.02
    grace: float = 5.0
    meet: float = 10.0

    @property
    def silent(self) -> float:
        """Without a word of a rank, that what it said last is not taken for what it does."""
        return self.lost / 3

    @classmethod
    def of(cls, seconds: float, first: float | None = None) -> Limits:
        """The limits that follow from those that a user sets."""
        return cls(stall=seconds, lost=min(60.0, seconds), first=max(1800.0, 3 * seconds) if first is None else first)


@dataclass(frozen=True)
class Verdict:
    """The end of a job.

    Attributes:
        blamed: the ranks that are the reason, as far as is known.
        line: one line for people: which rank, on which host, where, and why.
        table: a row for every rank: what it did, or waited for.
    """

    blamed: tuple[int, ...]
    line: str
    table: str = ""

    @property
    def text(self) -> str:
        """All of it."""
        return f"{self.line}\n{self.table}".rstrip()


def decide(ranks: Sequence[Seen], limits: Limits, still: float = float("inf")) -> Verdict | None:
    """Whether the job has to end, and why; None while all is well, or when all ranks end by themselves.

    Args:
        ranks: what is known of each rank.
        limits: how long what may take.
        still: seconds since the rank furthest behind was another one, or at another place. A rank that has waited for
            a slow one gets all of its time for its own part when that one has passed it.
    """
    running = [rank for rank in ranks if rank.end is None and rank.reached]
    failed = [rank for rank in ranks if rank.end is not None and rank.end.how == "failed"]
    followed = [rank for rank in ranks if rank.end is not None and rank.end.how == "followed"]
    dead = [rank for rank in running if rank.closed is not None]
    if dead and max(rank.closed or 0.0 for rank in dead) >= limits.gone:
        return _verdict(ranks, dead, "died, last heard", DIED, limits)
    if failed and (running or followed):
        if not running or max(rank.ended for rank in failed) >= limits.grace:
            reasons = {rank.end.reason for rank in failed if rank.end is not None}
            return _verdict(ranks, failed, "failed", "; ".join(sorted(reasons)), limits)
        return None
    lost = [rank for rank in running if rank.closed is None and rank.silent > limits.lost]
    if lost:
        seconds = max(rank.silent for rank in lost)
        return _verdict(ranks, lost, "does not answer, last heard", silence(seconds), limits)
    if followed and (not running or max(rank.ended for rank in followed) >= limits.grace):
        quiet = [rank for rank in running if rank.silent > limits.silent]
        if quiet:  # Gloo gives up a rank that stands still before this watchdog does
            seconds = max(rank.silent for rank in quiet)
            return _verdict(ranks, quiet, "does not answer, last heard", silence(seconds), limits)
        first = max(followed, key=lambda rank: rank.ended)
        reason = first.end.reason if first.end is not None else ""
        line = f"the ranks lost their connections to each other; rank {first.rank} on {first.host} {place_of(first)}"
        return Verdict((), f"{line}: {reason}", table(ranks, limits.silent))
    return _stall(ranks, running, limits, still)


def _stall(ranks: Sequence[Seen], running: Sequence[Seen], limits: Limits, still: float) -> Verdict | None:
    """A verdict on the ranks that are furthest behind, if they have been there for too long."""
    if not running:
        return None
    behind = furthest_behind(running)
    # Of ranks at the same place some may wait for the one that came last, so it is that one's time that counts.
    seconds = min(still, *(rank.state.seconds for rank in behind))
    limit = max(_limit(rank.state, limits) for rank in behind)
    if seconds <= limit:
        return None
    if any(rank.silent > limits.silent for rank in behind):
        return None  # what it said is old; it will be heard, or be lost
    why = f"{line_of(behind[0].state)} for {seconds:.0f} s (limit {limit:g} s)"
    if len(behind) < len(running):
        return _verdict(ranks, behind, "is stuck" if len(behind) == 1 else "are stuck", why, limits)
    left = [rank for rank in ranks if rank.end is not None]
    if left:
        if all(_waits_for_others(rank.state) for rank in behind):
            how = "; ".join(sorted({rank.end.reason or "done" for rank in left if rank.end is not None}))
            waits = "waits" if len(running) == 1 else "wait"
            waiting = f"{ranks_text([rank.rank for rank in running])} still {waits} {place_of(behind[0])}: {why}"
            return _verdict(ranks, left, "ended", f"{how}; {waiting}", limits)
        ended = f"after {ranks_text([rank.rank for rank in left])} ended"
        return _verdict(ranks, running, "is stuck" if len(running) == 1 else "are stuck", f"{ended}: {why}", limits)
    unknown = [rank for rank in ranks if not rank.reached]
    cause = f"{_names(unknown)} never reached this watchdog" if unknown else "a device or a link hangs"
    line = f"all ranks are stuck {place_of(behind[0])}: {why}; {cause}"
    return Verdict(tuple(rank.rank for rank in unknown), line, table(ranks, limits.silent))


def _waits_for_others(state: State) -> bool:
    return state.doing == "agreeing" or (state.doing in ("step", "first step") and not state.detail)


def _limit(state: State, limits: Limits) -> float:
    """For a place. A first batch may come late, too; whether it comes at all, the sequence's own `timeout` sees to."""
    return limits.first if state.doing in ("preparing", "first step") else limits.stall


def _verdict(ranks: Sequence[Seen], blamed: Sequence[Seen], what: str, why: str, limits: Limits) -> Verdict:
    line = f"{_names(blamed)} {what} {place_of(blamed[0])}: {why}"
    return Verdict(tuple(rank.rank for rank in blamed), line, table(ranks, limits.silent))


def _names(ranks: Sequence[Seen]) -> str:
    more = [f"{len(ranks) - 4} more"] if len(ranks) > 4 else []
    return join([*(f"rank {rank.rank} on {rank.host}" for rank in ranks[:4]), *more])
