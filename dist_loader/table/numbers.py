"""Columns of numbers as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.table.chunks import NumberRows
from dist_loader.table.specs import Numbers, NumberType

if TYPE_CHECKING:
    from dist_loader.table.table import Table

_EXACT_IN_FLOAT32 = 1 << 24  # all whole numbers up to this
_EXACT_IN_FLOAT64 = 1 << 53


class NumberColumns:
    """Numbers of a table, in the type and the shape that was asked for.

    Args:
        table: the rows.
        spec: which columns.

    Raises:
        ConfigError: a column that is not there or holds no numbers; a value that is missing, not finite, or that the
            type cannot hold, with its row.
    """

    def __init__(self, table: Table, spec: Numbers) -> None:
        if spec.dtype not in get_args(NumberType):
            raise ConfigError(f"dtype must be one of {', '.join(get_args(NumberType))}, not {spec.dtype!r}")
        self._table = table
        self._spec = spec
        self.dtype = np.dtype(spec.dtype)
        self._columns = [(name, NumberRows(table.column(name), name)) for name in spec.names]
        alone = isinstance(spec.columns, str)
        width = sum(column.width or 1 for _, column in self._columns)
        self.shape: tuple[int, ...] = () if alone and self._columns[0][1].width is None else (width,)
        for numbers in table.blocks():
            self._check(numbers)

    def read(self, numbers: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Write the numbers of some samples into `out`, shape (n, *shape)."""
        rows, flat, start = self._table.data_rows(numbers), out.reshape(len(numbers), -1), 0
        for _, column in self._columns:
            values, missing = self._filled(*column.read(rows))
            width = column.width or 1
            with np.errstate(all="ignore"):  # what does not fit was refused, or is replaced
                flat[:, start : start + width] = values.reshape(len(numbers), width)
            if missing is not None:
                flat[:, start : start + width][missing.reshape(len(numbers), width)] = self._spec.missing
            start += width

    def _filled(
        self, values: npt.NDArray[Any], nulls: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Values, and which of them are missing; None: none."""
        if values.dtype.kind == "f":
            nan = np.isnan(values)
            nulls = nan if nulls is None else nulls | nan
        return values, nulls if nulls is not None and nulls.any() else None

    def _check(self, numbers: npt.NDArray[np.int64]) -> None:
        """Refuse values that would not come through."""
        rows = self._table.data_rows(numbers)
        for name, column in self._columns:
            values, missing = self._filled(*column.read(rows))
            if missing is not None:
                if self._spec.missing is None:
                    row = int(rows[np.flatnonzero(missing.reshape(len(rows), -1).any(axis=1))[0]])
                    raise ConfigError(
                        f"row {row} of column {name!r} has no value: fill it in, leave the row out, or say what "
                        f"stands for it with Numbers({name!r}, missing=...)"
                    )
                values = np.where(missing, np.asarray(0, values.dtype), values)
            lost = _lost(values, self.dtype).reshape(len(rows), -1).any(axis=1)
            if lost.any():
                at = int(np.flatnonzero(lost)[0])
                raise ConfigError(
                    f"row {int(rows[at])} of column {name!r} is {values[at]!s:.80}, which {self.dtype} cannot hold "
                    f"as it is: choose another type with Numbers({name!r}, dtype=...)"
                )


def _lost(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[np.bool_]:
    """Which values do not come through: infinite ones, and whole numbers that change. Fractions may be rounded."""
    lost: npt.NDArray[np.bool_]
    if dtype.kind == "f" and values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            lost = ~np.isfinite(values.astype(dtype))
    elif dtype.kind == "f":
        limit = _EXACT_IN_FLOAT32 if dtype == np.float32 else _EXACT_IN_FLOAT64
        lost = (values > limit) | (values < -limit)
    elif values.dtype.kind == "f":
        limits = np.iinfo(dtype)
        lost = ~((values == np.floor(values)) & (values >= limits.min) & (values < float(limits.max) + 1))
    else:
        lost = (values > np.iinfo(dtype).max) | (values < np.iinfo(dtype).min)
    return lost
