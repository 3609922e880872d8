"""The errors that this package raises on purpose.

Every message is one line for a person at 3 a.m.: what was found, where (rank, path, value), and what to do.
"""

from __future__ import annotations

import os


class DistLoaderError(Exception):
    """Base of every error that this package raises on purpose."""


class ConfigError(DistLoaderError, ValueError):
    """A job that cannot run as it was asked for: a bad value, a missing folder, a strategy that is not installed."""


class SampleError(DistLoaderError):
    """A sample that could not be read.

    Attributes:
        sample: its number in the index.
        path: where it was read from.
        reason: what went wrong, in the words of the library that failed.
        rank: which rank found it; None: not known here.
    """

    def __init__(self, sample: int, path: str, reason: str, rank: int | None = None, advice: str = "") -> None:
        self.sample = sample
        self.path = path
        self.reason = reason
        self.rank = rank
        who = "" if rank is None else f"rank {rank}: "
        super().__init__(f"{who}cannot read sample {sample}, {path!r}: {reason}{advice and f'; {advice}'}")


class StreamError(DistLoaderError):
    """A user's stream that raised on one of the ranks, or had an item that cannot be used.

    Attributes:
        rank: on which.
        item: its number in that rank's stream, from 0; None on the other ranks, which have only the text.
    """

    def __init__(self, rank: int, item: int | None, reason: str) -> None:
        self.rank = rank
        self.item = item
        super().__init__(f"rank {rank}: item {item} of the stream: {reason}" if item is not None else reason)

    @classmethod
    def told(cls, rank: int, text: str) -> StreamError:
        """What another rank said of its stream."""
        return cls(rank, None, text)


class ReadTimeout(DistLoaderError, TimeoutError):
    """The next batch, or an answer of the file system, did not come within the time that it was given."""


class CheckpointError(DistLoaderError):
    """A checkpoint that cannot be written or read. Those that were whole before still are."""


class TooManyBadSamples(DistLoaderError):
    """More samples cannot be read than the budget allows.

    Attributes:
        count: how many, as far as this rank knows.
        budget: how many are allowed.
        path: of the last one.
        reason: why it could not be read.
        rank: which rank found it.
        file: where all are written down, if anywhere.
    """

    def __init__(
        self, count: int, budget: int, path: str, reason: str, rank: int, file: os.PathLike[str] | None = None
    ) -> None:
        self.count = count
        self.budget = budget
        self.path = path
        self.reason = reason
        self.rank = rank
        self.file = file
        where = "" if file is None else f"; all are in {os.fspath(file)!r}, mend them and remove it"
        super().__init__(
            f"rank {rank}: {count} samples cannot be read, and bad_budget allows {budget}; the last is {path!r}: "
            f"{reason}{where}, or allow more"
        )


class AugmentError(DistLoaderError):
    """A user's function that changes samples failed, or returned something that does not fit."""


class ChannelError(DistLoaderError, TimeoutError):
    """Ranks that did not come to what all ranks do together, or that came to something else.

    Attributes:
        ranks: their numbers, as far as they are known.
        late: whether they did not come, and not to something else.
    """

    def __init__(self, message: str, ranks: tuple[int, ...] = (), *, late: bool = False) -> None:
        self.ranks = ranks
        self.late = late
        super().__init__(message)
