"""Sequences of different lengths, one after the other in one array, and where each begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError

Numbers = npt.NDArray[np.int64]

_BLOCK = 1 << 20  # offsets looked at in one go


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences: number n is `values[offsets[n]:offsets[n + 1]]`.

    Both arrays may be memory maps: of the values only what is asked for is read.

    Attributes:
        values: of all sequences, shape (total, ...).
        offsets: (sequences + 1,) integers, the first 0, the last `total`, none below the one before.
        name: where they come from, for errors.

    Raises:
        ConfigError: the offsets are not such; it names the sequence.
    """

    values: npt.NDArray[Any]
    offsets: npt.NDArray[np.integer]
    name: str

    def __post_init__(self) -> None:
        if self.values.ndim < 1 or self.offsets.ndim != 1 or self.offsets.dtype.kind not in "iu":
            raise ConfigError(
                f"{self.name}: expected values of shape (total, ...) and offsets of integers, (sequences + 1,), not "
                f"{self.values.shape} and {self.offsets.dtype} {self.offsets.shape}"
            )
        if not len(self.offsets) or self.offsets[0] != 0 or self.offsets[-1] != len(self.values):
            raise ConfigError(
                f"{self.name}: offsets must begin with 0 and end with the number of values, {len(self.values)}, not "
                f"{self.offsets[:1].tolist()} and {self.offsets[-1:].tolist()}"
            )
        for first, lengths in self._blocks():
            if (lengths < 0).any():
                at = first + int(np.argmax(lengths < 0))
                begin, end = self.offsets[at : at + 2].tolist()
                raise ConfigError(f"{self.name}: by its offsets, sequence {at} begins at {begin} and ends at {end}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self, numbers: Numbers) -> Numbers:
        """How long some sequences are, int64, of the numbers' shape."""
        ends: Numbers = self.offsets[numbers + 1].astype(np.int64)
        return ends - self.offsets[numbers]

    def where(self, number: int) -> tuple[int, int]:
        """First value of a sequence, and the one after its last."""
        return int(self.offsets[number]), int(self.offsets[number + 1])

    @cached_property
    def longest(self) -> tuple[int, int]:
        """Number and length of the longest sequence; (0, 0) if there are none."""
        most = 0, 0
        for first, lengths in self._blocks():
            at = int(np.argmax(lengths))
            if lengths[at] > most[1]:
                most = first + at, int(lengths[at])
        return most

    def require_lengths_of(self, other: Ragged) -> None:
        """Check that each sequence is as long as that of another with the same number.

        Raises:
            ConfigError: one is not.
        """
        if len(self) != len(other):
            raise ConfigError(f"{self.name} has {len(self)} sequences, and {other.name} {len(other)}")
        for (first, own), (_, wanted) in zip(self._blocks(), other._blocks(), strict=True):
            if (own != wanted).any():
                at = int(np.argmax(own != wanted))
                raise ConfigError(
                    f"sequence {first + at} has {own[at]} values in {self.name}, and {wanted[at]} in {other.name}"
                )

    def _blocks(self) -> Iterator[tuple[int, Numbers]]:
        """Lengths of all sequences, a part at a time, with the number of the part's first."""
        for first in range(0, len(self), _BLOCK):
            offsets: Numbers = self.offsets[first : first + _BLOCK + 1].astype(np.int64)
            yield first, offsets[1:] - offsets[:-1]
