"""Any rows of an Arrow column, without copies of it: a column may lie in several pieces, mapped from a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

Rows = npt.NDArray[np.integer]


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds texts (or paths as bytes)."""
    return any(
        test(kind)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    )


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds a list in each row."""
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without the forms of storage that mean the same: a dictionary's values, views as texts."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.cast(kind.value_type))
    if pa.types.is_string_view(kind):
        return column.cast(pa.large_string())
    return column


class NumberRows:
    """Numbers of some rows of a column.

    Args:
        column: numbers, truth values, or lists of numbers of one length.
        name: of the column, for errors.

    Raises:
        ConfigError: anything else.
    """

    def __init__(self, column: pa.ChunkedArray, name: str) -> None:
        column = plain(column)
        self.width: int | None = None  # places in a row; None: a single number
        if is_list(column.type):
            self.width = _common_length(column, name)
        self._chunks = [_numbers(chunk, name, self.width) for chunk in column.chunks if len(chunk)]
        self._starts = _starts([len(values) for values, _ in self._chunks])
        self.dtype = np.result_type(*(values.dtype for values, _ in self._chunks)) if self._chunks else np.dtype("f4")

    def read(self, rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Values, shape (n,) or (n, width), and which are missing (None: none that is null; NaN is not told)."""
        shape = (len(rows),) if self.width is None else (len(rows), self.width)
        values, missing = np.empty(shape, self.dtype), None
        for chunk, places, within in _divided(rows, self._starts):
            numbers, nulls = self._chunks[chunk]
            values[places] = numbers[within]
            if nulls is not None:
                missing = np.zeros(shape, bool) if missing is None else missing
                missing[places] = nulls[within]
        return values, missing


class TextRows:
    """Texts of single rows of a column, none of which is ever a Python object for longer than it is looked at.

    Args:
        column: texts.
        name: of the column, for errors.

    Raises:
        ConfigError: it holds something else.
    """

    def __init__(self, column: pa.ChunkedArray, name: str) -> None:
        column = plain(column)
        if not is_text(column.type):
            raise ConfigError(f"column {name!r} holds {column.type}, and paths must be texts")
        offset = np.int64 if "large" in str(column.type) else np.int32
        self._chunks = []
        for chunk in column.chunks:
            if len(chunk):
                _, offsets, data = chunk.buffers()
                ends = np.frombuffer(offsets, offset)[chunk.offset : chunk.offset + len(chunk) + 1]
                self._chunks.append((ends, memoryview(data) if data is not None else memoryview(b"")))
        self._starts = _starts([len(ends) - 1 for ends, _ in self._chunks])

    def text(self, row: int) -> str:
        """One of them; a missing one is empty."""
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        ends, data = self._chunks[chunk]
        at = row - int(self._starts[chunk])
        return os.fsdecode(bytes(data[ends[at] : ends[at + 1]]))


def empty_texts(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which rows of a column of texts are missing or empty."""
    lengths = pc.fill_null(pc.binary_length(plain(column)), 0)
    return np.asarray(pc.equal(lengths, 0).combine_chunks())


def _starts(lengths: list[int]) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *lengths[:-1]], dtype=np.int64)


def _divided(rows: Rows, starts: npt.NDArray[np.int64]) -> Iterator[tuple[int, Any, Rows]]:
    """Rows by the piece that they lie in: its number, their places among the given ones, and their places in it."""
    if len(starts) == 1:
        yield 0, slice(None), rows
        return
    pieces = np.searchsorted(starts, rows, side="right") - 1
    for piece in np.unique(pieces).tolist():
        places = np.flatnonzero(pieces == piece)
        yield piece, places, rows[places] - starts[piece]


def _numbers(chunk: pa.Array, name: str, width: int | None) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """A piece's numbers, in its own memory where they lie there as NumPy has them; and which are missing."""
    if width is not None:
        inner, inner_nulls = _numbers(chunk.flatten(), name, None)  # without the lists that are missing
        if not chunk.null_count:
            shape = (len(chunk), width)
            return inner.reshape(shape), None if inner_nulls is None else inner_nulls.reshape(shape)
        there = np.asarray(chunk.is_valid())
        values = np.zeros((len(chunk), width), inner.dtype)
        values[there] = inner.reshape(-1, width)
        missing = np.broadcast_to(~there[:, None], values.shape).copy()
        if inner_nulls is not None:
            missing[there] = inner_nulls.reshape(-1, width)
        return values, missing
    nulls = np.asarray(chunk.is_null()) if chunk.null_count else None
    kind = chunk.type
    if pa.types.is_decimal(kind):
        chunk, kind = chunk.cast(pa.float64()), pa.float64()
    if pa.types.is_null(kind) or not len(chunk):
        return np.zeros(len(chunk), np.float32), np.ones(len(chunk), bool)
    if pa.types.is_boolean(kind):
        return np.asarray(chunk.fill_null(False)).astype(np.uint8), nulls
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        hint = "a Label is made of texts" if is_text(kind) else "convert it to numbers"
        raise ConfigError(f"column {name!r} holds {kind} and no numbers; {hint}")
    values = np.frombuffer(chunk.buffers()[1], kind.to_pandas_dtype())
    return values[chunk.offset : chunk.offset + len(chunk)], nulls


def _common_length(column: pa.ChunkedArray, name: str) -> int:
    """Of the lists in a column.

    Raises:
        ConfigError: they are not all of one length.
    """
    if pa.types.is_fixed_size_list(column.type):
        return int(column.type.list_size)
    lengths = pc.list_value_length(column)
    ends = pc.min_max(lengths).as_py()
    if ends["min"] is None:
        return 1
    if ends["min"] != ends["max"]:
        row = pc.index(lengths, ends["min"]).as_py()
        raise ConfigError(
            f"the lists in column {name!r} must be of one length; that of row {row} has {ends['min']} numbers, "
            f"others up to {ends['max']}"
        )
    return int(ends["min"])
