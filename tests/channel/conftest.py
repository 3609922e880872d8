"""Ranks that are threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from dist_loader.channel import SECONDS, Data


@dataclass
class Meeting:
    """Where the threads exchange what they have."""

    size: int
    parts: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=30)


@dataclass
class Thread:
    """The channel of one of them."""

    rank: int
    meeting: Meeting

    @property
    def size(self) -> int:
        return self.meeting.size

    def allgather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        self.meeting.parts[self.rank] = bytes(data)
        self.meeting.barrier.wait()
        parts: list[Data] = [self.meeting.parts[rank] for rank in range(self.size)]
        self.meeting.barrier.wait()
        return parts

    def gather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        parts = self.allgather(data, what)
        return parts if self.rank == 0 else []

    def broadcast(self, data: Data, what: str, seconds: float | None = SECONDS) -> Data:
        return self.allgather(data, what)[0]

    def barrier(self, what: str, seconds: float | None = SECONDS) -> None:
        self.allgather(b"", what)


@pytest.fixture
def on_ranks() -> Callable[..., list[Any]]:
    """Call a function on so many ranks at the same time; what it returned, or raised, on each."""

    def call(size: int, function: Callable[[Thread], Any]) -> list[Any]:
        meeting, results = Meeting(size), [None] * size

        def run(rank: int) -> None:
            try:
                results[rank] = function(Thread(rank, meeting))
            except Exception as error:
                results[rank] = error

        threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return results

    return call
