"""What is known of every sample and kept in memory, such as its label, as a target for Keras."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import keras
import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from dist_loader.sequence.data import Column, Numbers

Labels = Literal["integer", "one-hot"]


class OneHot:
    """Labels as vectors with a 1 at the label's place.

    Args:
        labels: those of some samples, by their numbers; integers from 0 to classes - 1.
        classes: length of a vector.
    """

    def __init__(self, labels: Column, classes: int) -> None:
        self._labels = labels
        self._classes = classes

    def __getitem__(self, numbers: Numbers) -> npt.NDArray[np.float32]:
        """The vectors of some samples, float32, shape (n, classes)."""
        rows = np.zeros((len(numbers), self._classes), np.float32)
        rows[np.arange(len(numbers)), self._labels[numbers]] = 1
        return rows


def label_column(labels: npt.NDArray[np.integer], classes: int, how: Labels, column: Column | None = None) -> Column:
    """Labels as integers or as vectors.

    Args:
        labels: (samples,) integers.
        classes: length of a vector.
        how: "integer" or "one-hot".
        column: gives the labels of a few samples, where that is not to be the array.

    Raises:
        ConfigError: neither was asked for, or a label has no place in a vector.
    """
    if how not in get_args(Labels):
        raise ConfigError(f"labels must be one of {', '.join(get_args(Labels))}, not {how!r}")
    if how == "integer":
        return labels if column is None else column
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ConfigError(f"labels from {labels.min()} to {labels.max()} do not fit in one-hot vectors of {classes}")
    return OneHot(labels if column is None else column, classes)


def mapped_columns(structure: Any, samples: int, what: str, known: Callable[[str], bool]) -> Any:
    """A structure whose leaves are names or arrays of one row for each sample, checked; lists become arrays.

    Args:
        structure: as `keras.tree` takes it; lists of numbers are leaves, not structures.
        samples: how many there are.
        what: the argument's name, for errors.
        known: whether a name is one.

    Raises:
        ConfigError: an unknown name, or an array of another length.
    """

    def leaf(found: Any) -> Any:
        if isinstance(found, str):
            if not known(found):
                raise ConfigError(f"{what} names {found!r}, which the reader does not have")
            return found
        if isinstance(found, list):
            try:
                found = np.asarray(found)
            except ValueError:
                raise ConfigError(f"{what} has rows of different lengths: {found!r:.80}") from None
        if isinstance(found, np.ndarray) and (found.dtype.hasobject or found.dtype.kind in "USMm"):
            raise ConfigError(f"{what} must be numbers, not {found.dtype}")
        if not hasattr(found, "__getitem__"):
            raise ConfigError(f"{what} must be a name, or an array of one row for each sample, not {found!r:.80}")
        if hasattr(found, "__len__") and len(found) != samples:
            raise ConfigError(f"{what} must have one row for each of the {samples} samples, and has {len(found)}")
        return found

    if isinstance(structure, dict):
        return {name: mapped_columns(part, samples, what, known) for name, part in structure.items()}
    if isinstance(structure, tuple):
        return tuple(mapped_columns(part, samples, what, known) for part in structure)
    return leaf(structure)


def integer_labels(y: Any) -> npt.NDArray[np.integer] | None:
    """The targets, if they are one integer of 0 or more for each sample."""
    if isinstance(y, np.ndarray) and y.ndim == 1 and np.issubdtype(y.dtype, np.integer):
        return y if not len(y) or int(y.min()) >= 0 else None
    return None


def digest_of(structure: Any) -> str:
    """A text that changes when the arrays in a structure do, in part: of large ones only 1,000 rows are looked at."""
    found = hashlib.blake2b(digest_size=16)
    for leaf in keras.tree.flatten(structure):
        if isinstance(leaf, np.ndarray):
            some = leaf[np.linspace(0, len(leaf) - 1, 1000).astype(np.int64)] if len(leaf) > 1000 else leaf
            found.update(f"{leaf.shape} {leaf.dtype.str} ".encode() + np.ascontiguousarray(some).tobytes())
        else:
            found.update(repr(leaf if isinstance(leaf, str) else type(leaf).__name__).encode())
    return found.hexdigest()
