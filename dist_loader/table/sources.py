"""Tables out of files and out of memory, by Arrow's own readers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dist_loader.errors import ConfigError
from dist_loader.index.scan import shown

PathLike = str | os.PathLike[str]


def read_csv(path: PathLike, delimiter: str, types: Mapping[str, str], columns: Sequence[str] | None) -> pa.Table:
    """A CSV file; see `Table.from_csv`."""
    options = {
        "read_options": pyarrow.csv.ReadOptions(),
        # Quoted fields may hold line breaks; slower, for then a piece of the file says nothing of its own.
        "parse_options": _parsing(delimiter),
        "convert_options": pyarrow.csv.ConvertOptions(
            column_types={name: _type(name, kind) for name, kind in types.items()},
            include_columns=None if columns is None else list(columns),
        ),
    }
    return _read(path, lambda: pyarrow.csv.read_csv(os.fspath(path), **options))


def read_parquet(path: PathLike, columns: Sequence[str] | None) -> pa.Table:
    """A Parquet file, or a folder of them; see `Table.from_parquet`."""
    return _read(path, lambda: _with_columns(pyarrow.parquet.read_table(os.fspath(path)), columns))


def map_arrow(path: PathLike) -> pa.Table:
    """An Arrow file (or stream, or Feather), in memory that is mapped to it."""

    def opened() -> pa.Table:
        memory = pa.memory_map(os.fspath(path))
        try:
            return pa.ipc.open_file(memory).read_all()
        except pa.ArrowInvalid:
            memory.seek(0)
            return pa.ipc.open_stream(memory).read_all()

    return _read(path, opened)


def of_rows(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> pa.Table:
    """Rows in memory; see `Table.from_rows`."""
    names, found = list(names), list(rows)
    for number, row in enumerate(found):
        if isinstance(row, str) or len(row) != len(names):
            raise ConfigError(f"row {number} must have {len(names)} values, for {', '.join(names)}; got {row!r:.80}")
    return of_columns({name: [row[at] for row in found] for at, name in enumerate(names)})


def of_columns(columns: Mapping[str, Any]) -> pa.Table:
    """Columns in memory, each an array or a list; paths become texts."""
    made = {}
    for name, values in columns.items():
        given = values if hasattr(values, "__array__") else [_plain(value) for value in values]
        try:
            made[name] = pa.array(given)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise ConfigError(f"column {name!r} cannot be a column of a table: {_words(error)}") from error
    return pa.table(made)


def of_object(found: Any) -> pa.Table:
    """What Arrow takes for a table: a pandas or polars DataFrame, a RecordBatch, an Arrow table."""
    if isinstance(found, pa.Table):
        return found
    try:
        if hasattr(found, "iloc"):  # pandas; its index is no column
            return pa.Table.from_pandas(found, preserve_index=False)
        return pa.table(found)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ConfigError(f"cannot make a table of a {type(found).__name__}: {_words(error)}") from error


def write_arrow(table: pa.Table, parts: Iterable[Any] | None, path: Path) -> None:
    """Write an Arrow file, of all rows or of some, given as arrays of their numbers, piece by piece."""
    with pa.ipc.new_file(str(path), table.schema) as file:
        if parts is None:
            file.write_table(table)
        else:
            for rows in parts:
                file.write_table(table.take(rows))


def folder_of(path: PathLike) -> str:
    """The absolute folder that a file is in; of a folder, itself."""
    place = Path(path).absolute()
    return str(place if place.is_dir() else place.parent)


def _with_columns(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return table if columns is None else table.select(list(columns))


def _parsing(delimiter: str) -> pyarrow.csv.ParseOptions:
    if not isinstance(delimiter, str) or len(delimiter) != 1:
        raise ConfigError(f"delimiter must be one character, not {delimiter!r}")
    return pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)


def _type(name: str, kind: str) -> pa.DataType:
    try:
        return pa.type_for_alias(kind)
    except ValueError:
        raise ConfigError(
            f'types names {kind!r} for column {name!r}; known are "string", "int64", "float64", "bool" and the like'
        ) from None


def _read(path: PathLike, read: Any) -> pa.Table:
    try:
        table: pa.Table = read()
        str(table.column_names)  # which must be UTF-8
    except FileNotFoundError:
        raise ConfigError(f"there is no table at {shown(os.fsencode(path))}") from None
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise ConfigError(f"cannot read the table {shown(os.fsencode(path))}: {_words(error)}") from error
    return table


def _words(error: Exception) -> str:
    return " ".join(str(error).split())


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
