"""Rows of numbers, labels and paths, held as Arrow columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError

try:
    import pyarrow as pa
except ImportError as error:  # an extra
    raise ConfigError("tables need pyarrow: pip install 'dist-loader[table]'") from error

from dist_loader.index import selection
from dist_loader.index.file import replacing
from dist_loader.table import sources
from dist_loader.table.labels import class_codes, found_classes

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """The samples of a data set, one in each row. Made by one of the `from_` functions; never written to.

    A part of a table (`take`, `split`) refers to the rows of the whole, so it takes 4 bytes for each row of its own (8
    from 2**31 rows on), whatever the columns hold.

    Attributes:
        data: the columns, of all rows.
        rows: (samples,) integers: the rows of `data` that belong to this table; None for all.
        root: the folder or address that relative paths in it start from.

    Raises:
        ConfigError: no rows, or two columns of one name.
    """

    data: pa.Table
    rows: npt.NDArray[np.integer] | None = None
    root: str = ""

    def __post_init__(self) -> None:
        names = self.data.column_names
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two columns of the table have the name {name!r}: rename or remove one")
        if not self.data.num_rows:
            raise ConfigError(f"a table without rows (its columns: {', '.join(names) or 'none'})")

    @classmethod
    def from_csv(
        cls,
        path: str | os.PathLike[str],
        *,
        delimiter: str = ",",
        types: Mapping[str, str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Table:
        """Reads a CSV file in UTF-8 whose first line names the columns; all of it, into memory.

        What is not quoted and looks like numbers in all rows becomes numbers. An empty field is a missing number, or an
        empty text.

        Args:
            path: the file; its folder is the root of relative paths.
            delimiter: between two fields.
            types: of columns that are not to be guessed, such as {"zip": "string"}, by Arrow's names.
            columns: those to be read; None for all.

        Raises:
            ConfigError: it cannot be read, or is no table; the words are Arrow's.
        """
        return cls(sources.read_csv(path, delimiter, types or {}, columns), root=sources.folder_of(path))

    @classmethod
    def from_parquet(cls, path: str | os.PathLike[str], *, columns: Sequence[str] | None = None) -> Table:
        """Reads a Parquet file, or all in a folder in the order of their names, into memory.

        Raises:
            ConfigError: it cannot be read.
        """
        return cls(sources.read_parquet(path, columns), root=sources.folder_of(path))

    @classmethod
    def from_arrow(cls, found: Any) -> Table:
        """Opens an Arrow file by memory map, in memory that all processes share; or takes an Arrow table as it is.

        Args:
            found: path of a file in Arrow's IPC format ("Feather"), such as `save` writes; or an Arrow table, a record
                batch, or what gives itself as one (a polars DataFrame, for example).

        Raises:
            ConfigError: it cannot be read.
        """
        if isinstance(found, str | os.PathLike):
            return cls(sources.map_arrow(found), root=sources.folder_of(found))
        return cls(sources.of_object(found), root=str(Path.cwd()))

    @classmethod
    def from_pandas(cls, frame: Any) -> Table:
        """Takes a pandas DataFrame, without its index. NaN and None are missing values.

        Raises:
            ConfigError: a column holds objects that Arrow does not know.
        """
        return cls(sources.of_object(frame), root=str(Path.cwd()))

    @classmethod
    def from_rows(cls, rows: Iterable[Sequence[Any]], names: Sequence[str] = ("path", "label")) -> Table:
        """Takes rows such as [("a.jpg", "cat"), ("b.jpg", "dog")].

        Args:
            rows: each with a value for each column.
            names: of the columns.

        Raises:
            ConfigError: a row of another length; values of a column that are not of one kind.
        """
        return cls(sources.of_rows(rows, names), root=str(Path.cwd()))

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> Table:
        """Takes columns by name, each a list or a one-dimensional array.

        Raises:
            ConfigError: they are not of one length, or hold objects that Arrow does not know.
        """
        return cls(sources.of_columns(columns), root=str(Path.cwd()))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes an Arrow file for `from_arrow`, all of it or nothing. Relative paths in it stay as they are.

        Raises:
            ConfigError: it cannot be written.
        """
        parts = None if self.rows is None else selection.rows_of(self.rows.astype(np.int64, copy=False))()
        with replacing(Path(path)) as temporary:
            sources.write_arrow(self.data, parts, temporary)

    def __len__(self) -> int:
        return self.data.num_rows if self.rows is None else len(self.rows)

    def __repr__(self) -> str:
        return f"Table({len(self)} rows: {', '.join(self.columns)})"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.data.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of `data`, all of its rows.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self.columns:
            raise ConfigError(f"the table has no column {name!r}; it has {', '.join(map(repr, self.columns))}")
        return self.data.column(name)

    def data_rows(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.integer]:
        """Where samples of this table lie in `data`."""
        return numbers if self.rows is None else self.rows[numbers]

    def blocks(self) -> Iterator[npt.NDArray[np.int64]]:
        """The numbers of all samples, some at a time."""
        for at in range(0, len(self), selection.BLOCK):
            yield np.arange(at, min(at + selection.BLOCK, len(self)))

    def classes(self, column: str, separator: str | None = None) -> tuple[str, ...] | tuple[int, ...]:
        """The classes in a column of all of `data`, as a `Label` takes them: texts in byte order, or 0 to the largest.

        Args:
            column: texts, whole numbers, or lists of them.
            separator: what stands between several classes in a text.

        Raises:
            ConfigError: it holds something else, or numbers that cannot be labels.
        """
        return found_classes(self.column(column), column, separator)

    def take(self, numbers: npt.NDArray[Any] | Sequence[int]) -> Table:
        """The table of some samples, in the given order; one may be there more than once.

        Raises:
            IndexError: a number is not within 0 to len - 1.
            TypeError: they are not integers.
        """
        chosen = np.asarray(numbers)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu":
            raise TypeError(f"sample numbers must be a 1-D array of integers, got {chosen.ndim}-D {chosen.dtype}")
        for extreme in (int(chosen.min()), int(chosen.max())) if chosen.size else ():
            if not 0 <= extreme < len(self):
                raise IndexError(f"sample {extreme} is out of range for a table of {len(self)} rows")
        return self._part(chosen)

    def split(self, fraction: float, seed: int = 0, *, by: str | None = None) -> tuple[Table, Table]:
        """Sets a part of the samples aside, as for validation: (the rest, the held-out part).

        The held-out part has `round(len * fraction)` samples, chosen by (len, seed) alone, and with `by`, of every
        class its share, rounded up or down. Both parts keep the order; every sample is in exactly one of them.

        Args:
            fraction: how much to hold out, above 0 and below 1.
            seed: which samples; any int.
            by: a column of classes.

        Raises:
            ConfigError: the fraction is out of range, or a part would be empty.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"fraction to hold out must be above 0 and below 1, got {fraction!r}")
        samples, count = len(self), round(len(self) * fraction)
        if not 0 < count < samples:
            raise ConfigError(
                f"holding out {fraction} of {samples} rows leaves {samples - count} and {count}: both parts need one"
            )
        groups = np.zeros(samples, np.int32) if by is None else self.codes(by, self.classes(by))
        mask = selection.held_out(groups, count, seed)
        return self._part(np.flatnonzero(~mask)), self._part(np.flatnonzero(mask))

    def codes(self, column: str, classes: tuple[str, ...] | tuple[int, ...]) -> npt.NDArray[np.int32]:
        """The place of each sample's class among some, (samples,) int32.

        Raises:
            ConfigError: a value that is missing or not one of the classes, with its row.
        """
        return class_codes(self.column(column), column, classes, self.rows)

    def _part(self, numbers: npt.NDArray[Any]) -> Table:
        rows = self.data_rows(numbers.astype(np.int64))
        small = self.data.num_rows <= np.iinfo(np.int32).max
        return Table(self.data, rows.astype(np.int32 if small else np.int64), self.root)
