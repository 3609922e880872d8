"""Readers: sample numbers in, arrays out, decoded straight into given memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Reader(Protocol):
    """What the host window needs to know of a kind of data.

    A reader is called from several threads at once, so it keeps no state between calls.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one sample's elements."""

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: npt.NDArray[Any]) -> float:
        """Read samples into given memory.

        Args:
            numbers: which samples, int64, shape (n,). A reader that puts others in their places writes that here
                (`bad_samples.TolerantReader` does).
            epoch: the epoch that they are read for, from 0; what is random about a sample depends on it.
            out: where to, shape (n, *shape), C-contiguous. Every element must be written.

        Returns:
            Seconds of it that were spent fetching what is stored, and not decoding it.

        Raises:
            SampleError: a sample could not be read.
        """

    def name(self, number: int) -> str:
        """What a person would call a sample, such as its path."""
