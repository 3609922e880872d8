"""The reader of an `ArraySequence`: the same row of several arrays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.errors import ConfigError, SampleError
from dist_loader.readers.array_files import rows_of_file, rows_of_map
from dist_loader.readers.npy import NpyError, check_numbers
from dist_loader.readers.rows import ForeignRows, MemoryRows, RowError, Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from dist_loader.sequence.data import Numbers


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Reads sample n as row n of every array.

    Attributes:
        rows: the arrays by name, all of one length.
        dtype: by name, the types of elements in a batch.
    """

    rows: Mapping[str, Rows]
    dtype: Mapping[str, np.dtype[Any]]

    @property
    def shape(self) -> dict[str, tuple[int, ...]]:
        """Shapes of a sample, by name."""
        return {name: rows.shape[1:] for name, rows in self.rows.items()}

    def name(self, number: int) -> str:
        """The first array and the row."""
        return next(iter(self.rows.values())).name(number)

    def read(self, numbers: Numbers, epoch: int, out: Mapping[str, npt.NDArray[Any]]) -> float:
        """Read samples into arrays of shape (n, ...) by name; seconds spent fetching them.

        Raises:
            SampleError: a row could not be read; all rows of the samples before it have been.
        """
        fetching, first, where = 0.0, None, ""
        for name, rows in self.rows.items():
            try:
                fetching += rows.read(numbers, out[name])
            except RowError as error:
                if first is None or error.at < first.at:
                    first, where = error, rows.name(int(numbers[error.at]))
        if first is not None:
            raise SampleError(int(numbers[first.at]), where, first.reason) from first
        return fetching


def rows_of(given: Any, what: str) -> Rows:
    """An array, as a user gives it, as rows to be read.

    Args:
        given: an array or a list of numbers, a memory map, the path of a `.npy` or `.npz` file, something with shape,
            dtype and rows, or something that can become an array (of TensorFlow, PyTorch, pandas).
        what: a person's name for it.

    Raises:
        ConfigError: it is none of these, or has no rows, or does not hold numbers.
    """
    if isinstance(given, str | os.PathLike):
        return rows_of_file(os.fspath(given))
    rows = _rows(given, what)
    if not rows.shape or 0 in rows.shape:
        raise ConfigError(f"{what} has no rows: its shape is {rows.shape}")
    try:
        check_numbers(rows.dtype)
    except NpyError as error:
        raise ConfigError(f"{what} is {error}") from None
    if isinstance(given, np.memmap) and (found := rows_of_map(given)) is not None:
        return found
    return rows


def _rows(given: Any, what: str) -> Rows:
    if isinstance(given, list):
        given = _array_of(given, what)
    elif not isinstance(given, np.ndarray):
        for method in ("to_numpy", "numpy"):
            if callable(getattr(given, method, None)):
                given = np.asarray(getattr(given, method)())
                break
    if isinstance(given, np.ma.MaskedArray):
        raise ConfigError(f"{what} is a masked array, and its mask would be lost; give weights, or an array without")
    if isinstance(given, np.ndarray):
        return MemoryRows(np.asarray(given), what)
    if not all(hasattr(given, name) for name in ("shape", "dtype", "__getitem__")):
        raise ConfigError(
            f"{what} must be an array, the path of a .npy or .npz file, or a dictionary or tuple of them, "
            f"not {given!r:.80}"
        )
    try:
        return ForeignRows(given, tuple(map(int, given.shape)), np.dtype(given.dtype), what)
    except TypeError as error:
        raise ConfigError(f"{what} has a shape or a type that NumPy does not know: {error}") from error


def _array_of(rows: list[Any], what: str) -> npt.NDArray[Any]:
    if any(hasattr(row, "shape") or isinstance(row, str | os.PathLike) for row in rows[:2]):
        raise ConfigError(f"{what} is a list of arrays: a tuple makes them several inputs, np.stack makes them rows")
    try:
        return np.asarray(rows)
    except ValueError as error:
        raise ConfigError(f"{what} is a list of rows that are not of one shape") from error
