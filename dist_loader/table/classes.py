"""A column of classes as integers or vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.table.chunks import is_list, plain
from dist_loader.table.labels import ClassLists

if TYPE_CHECKING:
    from dist_loader.table.labels import Classes
    from dist_loader.table.specs import Label
    from dist_loader.table.table import Table


class LabelColumn:
    """Labels of a table's rows.

    Args:
        table: the rows.
        spec: which column, and in which form.

    Attributes:
        classes: by label.
        labels: (samples,) int32; None where a row may have several.

    Raises:
        ConfigError: a column that is not there or holds no classes; a value that is missing or no class, with its row.
    """

    def __init__(self, table: Table, spec: Label) -> None:
        column = table.column(spec.column)
        given = spec.classes
        self.classes: Classes = table.classes(spec.column, spec.separator) if given is None else tuple(given)  # type: ignore[assignment]
        self.labels: npt.NDArray[np.int32] | None = None
        self._table = table
        self._lists: ClassLists | None = None
        if spec.separator is not None or is_list(plain(column).type):
            if spec.one_hot:
                raise ConfigError(f"column {spec.column!r} has several classes in a row: leave one_hot out")
            self._lists = ClassLists(column, spec.column, spec.separator, self.classes, table.rows)
        else:
            self.labels = table.codes(spec.column, self.classes)
        vector = spec.one_hot or self._lists is not None
        self.shape: tuple[int, ...] = (len(self.classes),) if vector else ()
        self.dtype = np.dtype(np.float32 if vector else np.int32)

    def read(self, numbers: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Write the labels of some samples into `out`, shape (n, *shape)."""
        if self._lists is not None:
            self._lists.mark(self._table.data_rows(numbers), out)
        elif self.labels is not None:
            if self.shape:
                out[...] = 0
                out[np.arange(len(numbers)), self.labels[numbers]] = 1
            else:
                out[...] = self.labels[numbers]
