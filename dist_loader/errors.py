"""The errors that this package raises on purpose.

Every message is one line for a person at 3 a.m.: what was found, where (rank, path, value), and what to do.
"""

from __future__ import annotations


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
    """

    def __init__(self, sample: int, path: str, reason: str, rank: int | None = None) -> None:
        self.sample = sample
        self.path = path
        self.reason = reason
        self.rank = rank
        who = "" if rank is None else f"rank {rank}: "
        super().__init__(f"{who}cannot read sample {sample}, {path!r}: {reason}")


class ReadTimeout(DistLoaderError, TimeoutError):
    """The next batch, or an answer of the file system, did not come within the time that it was given."""


class CheckpointError(DistLoaderError):
    """A checkpoint that cannot be written or read. Those that were whole before still are."""
