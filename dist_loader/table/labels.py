"""Classes in a column of a table: which there are, and each row's as a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dist_loader.errors import ConfigError
from dist_loader.table.chunks import is_list, is_text, plain

if TYPE_CHECKING:
    from dist_loader.table.chunks import Rows

Classes: TypeAlias = tuple[str, ...] | tuple[int, ...]

_MOST = 1 << 20  # classes that numbers stand for unless the user names them: more is likely an id, and no label


def found_classes(column: pa.ChunkedArray, name: str, separator: str | None) -> Classes:
    """See `Table.classes`."""
    values = _flat(column, name, separator)[0]
    if is_text(values.type):
        found = sorted(filter(None, pc.unique(values).to_pylist()), key=str.encode)
        if not found:
            raise ConfigError(f"column {name!r} names no class: all of it is empty")
        return tuple(found)
    ends = pc.min_max(values).as_py()
    if ends["min"] is None:
        raise ConfigError(f"column {name!r} names no class: all of it is missing")
    if ends["min"] < 0 or ends["max"] >= _MOST:
        raise ConfigError(
            f"column {name!r} holds numbers from {ends['min']} to {ends['max']}, and labels count from 0 (to "
            f"{_MOST - 1} at most): give the values that are classes, as Label(classes=...)"
        )
    return tuple(range(ends["max"] + 1))


def class_codes(column: pa.ChunkedArray, name: str, classes: Classes, rows: Rows | None) -> npt.NDArray[np.int32]:
    """The place of each row's class among the classes, (rows,) int32; see `Table.codes`.

    Args:
        column: texts or whole numbers.
        name: of the column.
        classes: of the same kind.
        rows: those that are wanted; None for all.
    """
    column = plain(column)
    if is_list(column.type):
        raise ConfigError(f"column {name!r} holds lists, and one class for each row is needed")
    values = _flat(column, name, None)[0]
    codes = _places(values, name, classes)
    wanted = codes if rows is None else codes[rows]
    if len(wanted) and int(wanted.min()) < 0:
        at = int(np.flatnonzero(wanted < 0)[0])
        raise _unknown(values, at if rows is None else int(rows[at]), name, classes)
    return wanted


class ClassLists:
    """Several classes in each row, as numbers.

    Args:
        column: texts with a separator, or lists of texts or whole numbers.
        name: of the column.
        separator: between the classes of a text.
        classes: all of them.
        rows: those that are used, whose values are checked; None for all.

    Raises:
        ConfigError: a row without a value, or with one that is no class.
    """

    def __init__(
        self, column: pa.ChunkedArray, name: str, separator: str | None, classes: Classes, rows: Rows | None
    ) -> None:
        values, lengths, missing = _flat(column, name, separator)
        self._codes = _places(values, name, classes)
        empty = np.zeros(len(values), bool)
        if is_text(values.type):
            empty = np.asarray(pc.equal(pc.fill_null(values, "?"), "").combine_chunks())
        self._ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        bad = np.zeros(len(lengths), bool) if missing is None else missing
        of_row = np.repeat(np.arange(len(lengths)), lengths)
        unknown = (self._codes < 0) & ~empty
        bad[of_row[unknown]] = True
        used = bad if rows is None else bad[rows]
        if used.any():
            at = int(np.flatnonzero(used)[0])
            row = at if rows is None else int(rows[at])
            first = np.flatnonzero(unknown & (of_row == row))
            if not len(first):
                raise _missing(name, row)
            raise _unknown(values, int(first[0]), name, classes, row)

    def mark(self, rows: Rows, out: npt.NDArray[np.float32]) -> None:
        """Write a 1 for each class of some rows, and 0 for all others; `out` has the shape (n, classes)."""
        out[...] = 0
        for place, row in zip(out, rows.tolist(), strict=True):
            codes = self._codes[self._ends[row] : self._ends[row + 1]]
            place[codes[codes >= 0]] = 1  # an empty text is no class


def _flat(
    column: pa.ChunkedArray, name: str, separator: str | None
) -> tuple[pa.ChunkedArray, npt.NDArray[np.int64], npt.NDArray[np.bool_] | None]:
    """All values of a column one after the other, how many each row has, and which rows have none at all (null)."""
    column = plain(column)
    if is_text(column.type) and "binary" in str(column.type):
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid:
            raise ConfigError(f"column {name!r} holds bytes that are not UTF-8: convert its file to UTF-8") from None
    missing = np.asarray(column.is_null().combine_chunks()) if column.null_count else None
    if separator is not None:
        if not is_text(column.type):
            raise ConfigError(f"column {name!r} holds {column.type}: a separator is for texts")
        column = pc.split_pattern(column, separator)
    if is_list(column.type):
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0).combine_chunks())
        column = plain(pc.list_flatten(column))
        if separator is not None:
            column = pc.utf8_trim_whitespace(column)
    else:
        lengths = np.ones(len(column), np.int64)
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif pa.types.is_null(kind):
        column = column.cast(pa.string())
    elif not (pa.types.is_integer(kind) or is_text(kind)):
        raise ConfigError(f"column {name!r} holds {kind}: labels are texts or whole numbers; convert it, or read it so")
    return column, lengths, missing


def _places(values: pa.ChunkedArray, name: str, classes: Classes) -> npt.NDArray[np.int32]:
    """The place of each value among the classes; -1 for what is not there."""
    try:
        known = pa.array(list(classes), type=values.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        raise ConfigError(
            f"column {name!r} holds {values.type}, and the classes are of another kind: {list(classes)!r:.80}"
        ) from None
    return np.asarray(pc.fill_null(pc.index_in(values, value_set=known), -1).combine_chunks())


def _unknown(values: pa.ChunkedArray, at: int, name: str, classes: Classes, row: int | None = None) -> ConfigError:
    value: Any = values[at].as_py()
    row = at if row is None else row
    if value is None or value == "":
        return _missing(name, row)
    return ConfigError(f"row {row} of column {name!r} is {value!r:.80}, which is not one of the {len(classes)} classes")


def _missing(name: str, row: int) -> ConfigError:
    return ConfigError(f"row {row} of column {name!r} has no value: fill it in, or leave the row out")
