"""Readers: sample numbers in, arrays out, written straight into given memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt


class Reader(Protocol):
    """What the host window needs to know of a kind of data.

    A reader is called from several threads at once, so it keeps no state between calls.
    """

    @property
    def shape(self) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:
        """Shape of one sample; of samples of several arrays, their shapes by name."""

    @property
    def dtype(self) -> np.dtype[Any] | Mapping[str, np.dtype[Any]]:
        """Type of one sample's elements; of samples of several arrays, their types by name."""

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: Any) -> float | None:
        """Read samples into given memory.

        Args:
            numbers: which samples, int64, shape (n,). A reader that puts others in their places writes that here
                (`bad_samples.TolerantReader` does).
            epoch: the epoch that they are read for, from 0; what is random about a sample depends on it.
            out: where to: an array of shape (n, *shape), or a dictionary of them if `shape` is one; C-contiguous.
                Every element must be written.

        Returns:
            Seconds of it that were spent fetching what is stored, and not decoding it; None if that is not known.

        Raises:
            SampleError: a sample could not be read.
        """

    def name(self, number: int) -> str:
        """What a person would call a sample, such as its path."""


class SampleReader(Reader, Protocol):
    """A reader that also knows which samples there are: what a `ReaderSequence` reads."""

    @property
    def samples(self) -> int:
        """How many there are."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when the samples do, their number or their order; the same on all ranks.

        By it, ranks that would train on other data refuse to start, and a checkpoint of another training is told.
        """


class Paths(Protocol):
    """Where the files of samples are: an index, or a column of a table."""

    @property
    def root(self) -> str:
        """Folder or address that they are below."""

    @property
    def fingerprint(self) -> str:
        """A text that changes when a path or their order does, and not with root."""

    def __len__(self) -> int: ...

    def path(self, i: int) -> str:
        """Path or address of sample i."""
