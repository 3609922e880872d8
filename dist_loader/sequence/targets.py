"""Integer labels that a user gives as targets, for class weights and one-hot vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.sequence.columns import Labels, integer_labels, label_column
from dist_loader.sizes import at_least_one

if TYPE_CHECKING:
    from dist_loader.sequence.data import Column


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets that are kept in memory.

    Attributes:
        values: as given, (samples, ...).
        column: what Keras gets of them.
        labels: (samples,) integers of 0 or more; None if they are no such labels.
        classes: names of the labels, if their number is known.
    """

    values: npt.NDArray[Any]
    column: Column
    labels: npt.NDArray[np.integer] | None
    classes: tuple[str, ...]


def targets_of(y: npt.NDArray[Any], how: Labels, classes: int | None) -> Targets:
    """Targets of one row for each sample.

    Args:
        y: shape (samples, ...).
        how: "integer": as they are; "one-hot": vectors, which is for labels only.
        classes: how many there are; None: as many as the largest label says.

    Raises:
        ConfigError: one-hot vectors of what are no labels; a label that is none of the classes.
    """
    labels = integer_labels(y)
    if labels is None:
        if how == "integer" and classes is None:
            return Targets(y, y, None, ())
        raise ConfigError(
            f"one-hot labels and classes are for y of integers from 0 on, not {y.dtype} of shape {y.shape}"
        )
    most = int(labels.max())
    count = most + 1 if classes is None else at_least_one("classes", classes)
    if most >= count:
        raise ConfigError(f"y has the label {most}, of {count} classes from 0")
    names = () if classes is None else tuple(map(str, range(count)))
    return Targets(y, label_column(labels, count, how), labels, names)
