"""Paths in a column of a table."""

from __future__ import annotations

import hashlib
import os
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.remote.address import scheme_of
from dist_loader.table.chunks import TextRows, empty_texts

if TYPE_CHECKING:
    from dist_loader.table.table import Table

_LOOKED_AT = 100_000


class PathColumn:
    """Where the files of a column are.

    Args:
        table: the rows.
        name: of the column.
        root: folder or address that relative paths start from.

    Raises:
        ConfigError: there is no such column, it holds no texts, or a row names no file.
    """

    def __init__(self, table: Table, name: str, root: str) -> None:
        self._table = table
        self._texts = TextRows(table.column(name), name)
        empty = empty_texts(table.column(name))
        if table.rows is not None:
            empty = empty[table.rows]
        if empty.any():
            at = int(np.flatnonzero(empty)[0])
            row = at if table.rows is None else int(table.rows[at])
            raise ConfigError(f"row {row} of column {name!r} names no file: fill it in, or leave the row out")
        self.root = root.rstrip("/")

    def __len__(self) -> int:
        return len(self._table)

    def text(self, i: int) -> str:
        """What the table says."""
        return self._texts.text(int(self._table.data_rows(np.asarray([i]))[0]))

    def path(self, i: int) -> str:
        """Path or address of sample i, to be opened as it is."""
        text = self.text(i)
        return text if text.startswith("/") or scheme_of(text) is not None else f"{self.root}/{text}"

    @cached_property
    def fingerprint(self) -> str:
        """A text that changes when the paths do; of very many, only some are looked at (`sampled`)."""
        found = hashlib.blake2b(digest_size=16)
        for number in sampled(len(self)).tolist():
            found.update(os.fsencode(self.text(number)) + b"\0")
        return found.hexdigest()


def sampled(samples: int) -> npt.NDArray[np.int64]:
    """The samples that a fingerprint looks at: all of them up to 100,000, else so many at even distances."""
    if samples <= _LOOKED_AT:
        return np.arange(samples)
    return np.linspace(0, samples - 1, _LOOKED_AT).astype(np.int64)
