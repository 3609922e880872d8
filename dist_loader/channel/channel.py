"""The one interface, and what all of its implementations say when ranks are missing."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from dist_loader.errors import ChannelError
from dist_loader.watchdog.words import ranks_text

Data = bytes | bytearray | memoryview

SECONDS = 600.0  # that a rank is waited for, unless something else watches


class Channel(Protocol):
    """How the ranks of a job exchange bytes.

    Every rank calls the same methods in the same order. `what` names the call in errors. A rank that has waited for
    `seconds` raises a `ChannelError` that names the ranks that did not come; with None it waits for ever, for callers
    that are watched. After such an error the channel is of no use any more. For one thread at a time.
    """

    @property
    def rank(self) -> int:
        """This process among all."""

    @property
    def size(self) -> int:
        """How many there are."""

    def allgather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        """The data of all ranks, in their order, on every rank. For small data: rank 0 hands all of it to all."""

    def gather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        """The data of all ranks on rank 0, in their order; nothing elsewhere. For data of any size."""

    def broadcast(self, data: Data, what: str, seconds: float | None = SECONDS) -> Data:
        """Rank 0's data on every rank; what the others give is not looked at."""

    def barrier(self, what: str, seconds: float | None = SECONDS) -> None:
        """Wait until all ranks are here."""


_KINDS = {b"allg": "allgather", b"gath": "gather", b"broa": "broadcast", b"barr": "barrier"}  # as messages have them


def call_text(kind: bytes, number: int) -> str:
    """What a rank calls, for people."""
    return f"{_KINDS.get(kind, 'something else')} as call {number}"


def missing(ranks: Sequence[int], what: str, seconds: float, rank: int) -> ChannelError:
    """The error of ranks that did not come."""
    who = ranks_text(ranks) if ranks else "a rank, it is not known which one,"
    return ChannelError(
        f"{who} did not come to {what} within {seconds:g} s (as rank {rank} on {socket.gethostname()} "
        "saw it): look at what was written there last",
        tuple(ranks),
        late=True,
    )


def different(calls: Sequence[str], what: str) -> ChannelError:
    """The error of ranks that call different things, from what each of them calls."""
    others = tuple(number for number, call in enumerate(calls) if call != calls[0])
    told = ", ".join(f"{calls[number]} on rank {number}" for number in others[:3])
    return ChannelError(
        f"the ranks do not do the same: {calls[0]} on rank 0 ({what}), {told}; start all ranks with the same command",
        others,
    )
