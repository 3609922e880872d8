"""Sequences of tokens, cut and padded to rows of one length, with what belongs to each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from dist_loader.errors import SampleError

if TYPE_CHECKING:
    from dist_loader.ragged import Ragged

Cut = Literal["end", "start"]

TOKENS, TARGETS, WEIGHTS, MASK = "tokens", "targets", "weights", "mask"

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True, eq=False)
class Limits:
    """What the numbers of a column may be: from `low` to below `high`."""

    low: float = float(_INT32.min)
    high: float = float(_INT32.max) + 1

    def hold(self, dtype: np.dtype[Any]) -> bool:
        """Whether no number of a type can be outside, so that none needs to be looked at."""
        return dtype.kind in "iu" and self.low <= np.iinfo(dtype).min and np.iinfo(dtype).max < self.high

    def first_outside(self, values: npt.NDArray[Any]) -> int | None:
        """The first value that is outside (or not a number); None if all are within."""
        if not values.size or (values.min() >= self.low and values.max() < self.high):
            return None
        within = (values >= self.low) & (values < self.high)
        return int(np.argmin(within.reshape(len(values), -1).all(axis=1)))

    def __str__(self) -> str:
        return "0 or more, and finite" if self.high == np.inf else f"from {self.low:.0f} to {self.high - 1:.0f}"


@dataclass(frozen=True, eq=False)
class TokenColumn:
    """One of the things that a sequence has for each of its tokens: themselves, targets, weights.

    Attributes:
        what: one of them is, for errors.
        data: one sequence for each sample.
        limits: what its numbers may be; None: anything.
        table: rows that numbers are replaced by, shape (rows, width); None: they stay.
        one_hot: length of the vectors, with a 1 at a number's place, that numbers are replaced by; 0: they stay.
        padding: what follows after the sequence.
    """

    what: str
    data: Ragged
    limits: Limits | None = None
    table: npt.NDArray[Any] | None = None
    one_hot: int = 0
    padding: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is there for one token."""
        if self.table is not None:
            return self.table.shape[1:]
        return (self.one_hot,) if self.one_hot else self.data.values.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 for a table of that, float32 for other tables, vectors and fractions, int32 for whole numbers."""
        if self.table is not None:
            return np.dtype(np.float16 if self.table.dtype.itemsize == 2 else np.float32)
        whole = not self.one_hot and self.data.values.dtype.kind in "iu"
        return np.dtype(np.int32 if whole else np.float32)

    def write(self, values: npt.NDArray[Any], row: npt.NDArray[Any]) -> None:
        """Write what there is for some tokens, and padding after it."""
        kept, rest = row[: len(values)], row[len(values) :]
        if self.table is not None:
            if self.table.dtype == row.dtype:
                np.take(self.table, values, axis=0, out=kept, mode="clip")  # they were checked; "raise" would copy
            else:
                kept[...] = self.table[values]
        elif self.one_hot:
            kept[...] = 0
            kept[np.arange(len(values)), values] = 1
        else:
            kept[...] = values
        rest[...] = self.padding


@dataclass(frozen=True, eq=False)
class TokenReader:
    """Reads sequences into rows that have space for `room` tokens.

    Attributes:
        room: tokens in a row; what is longer is cut.
        cut: where: "end" keeps the first tokens, "start" the last.
        columns: what is read of each token, by name; one of them is `TOKENS`. All have the same lengths.
        mask: whether an array `MASK` says where the tokens are, bool, shape (room,).
    """

    room: int
    cut: Cut
    columns: Mapping[str, TokenColumn]
    mask: bool

    @property
    def shape(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of each array of one sample."""
        shapes = {name: (self.room, *column.shape) for name, column in self.columns.items()}
        return {**shapes, MASK: (self.room,)} if self.mask else shapes

    @property
    def dtype(self) -> Mapping[str, np.dtype[Any]]:
        """Type of each array's elements."""
        dtypes = {name: column.dtype for name, column in self.columns.items()}
        return {**dtypes, MASK: np.dtype(np.bool_)} if self.mask else dtypes

    @property
    def content(self) -> list[npt.NDArray[Any]]:
        """All arrays that are read from."""
        return [
            array
            for column in self.columns.values()
            for array in (column.data.values, column.data.offsets, column.table)
            if array is not None
        ]

    @property
    def recipe(self) -> str:
        """All that decides a row's content, apart from what is read."""
        parts = [f"{name} {column.shape} {column.dtype} {column.padding}" for name, column in self.columns.items()]
        return ", ".join([f"{self.room} tokens, cut at the {self.cut}", *parts])

    def name(self, number: int) -> str:
        """Where a sequence is: where all are, and its number."""
        return f"{self.columns[TOKENS].data.name}[{number}]"

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: Mapping[str, npt.NDArray[Any]]) -> None:
        """Read sequences into `out`, arrays of shape (n, room, ...) by name.

        Raises:
            SampleError: a number is out of its range; it names the sequence, and the place in it.
        """
        for at, number in enumerate(numbers.tolist()):
            begin, end = self.columns[TOKENS].data.where(number)
            length = min(end - begin, self.room)
            skipped = end - begin - length if self.cut == "start" else 0
            for name, column in self.columns.items():
                first = column.data.where(number)[0] + skipped
                values = column.data.values[first : first + length]
                if column.limits is not None and (outside := column.limits.first_outside(values)) is not None:
                    reason = f"{column.what} {skipped + outside} is {values[outside]}, and must be {column.limits}"
                    raise SampleError(number, self.name(number), reason)
                column.write(values, out[name][at])
            if self.mask:
                out[MASK][at, :length] = True
                out[MASK][at, length:] = False
