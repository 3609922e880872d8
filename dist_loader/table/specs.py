"""What a training takes of a table: columns, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.readers.image import Color, checked_size
from dist_loader.readers.resize import Resize

NumberType = Literal["float32", "float64", "int32", "int64", "uint8"]
MaskType = Literal["uint8", "int32"]


@dataclass(frozen=True)
class Numbers:
    """Numbers, as they are: an array of shape (batch,) of one column, or (batch, width) of several.

    A column of lists that are all of one length takes so many places. A name alone, or a list of names, stands for
    this with float32.

    Args:
        columns: a column's name, or several names.
        dtype: of the array. What it cannot hold is an error: a fraction or too large a number in integers, and in
            float32 a whole number above 2**24 that it would round.
        missing: what stands for a missing value (null or NaN); None: it is an error.
    """

    columns: str | Sequence[str]
    dtype: NumberType = "float32"
    missing: float | None = None

    def __post_init__(self) -> None:
        columns: Any = self.columns
        if isinstance(columns, str):
            return
        if not isinstance(columns, list | tuple) or not columns or not all(isinstance(name, str) for name in columns):
            raise ConfigError(f"Numbers takes a column's name or a list of names, not {columns!r:.80}")
        object.__setattr__(self, "columns", tuple(columns))  # so that it can be compared and hashed

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""
        return (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)


@dataclass(frozen=True)
class Label:
    """A class, or several.

    One class for each row is an int32, shape (batch,), or one-hot, float32, shape (batch, classes). Several (a column
    of lists, or texts such as "cat|dog") are a vector with a 1 for each, float32, shape (batch, classes); an empty list
    or text is none of them.

    Args:
        column: texts or whole numbers.
        classes: texts or whole numbers by their label, such as `table.classes(column)` of the training's table. By
            default that of the table at hand: texts in byte order; whole numbers are labels themselves, from 0. The
            parts that `split` and `take` make of a table have all of its classes.
        one_hot: a vector instead of an integer.
        separator: what stands between several classes in a text; spaces around them do not count.
    """

    column: str
    classes: Sequence[str] | Sequence[int] | None = None
    one_hot: bool = False
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.separator == "":
            raise ConfigError("separator must be a text that is not empty, or None")
        if self.classes is not None:
            object.__setattr__(self, "classes", _checked_classes(self.classes))


@dataclass(frozen=True)
class Image:
    """An image file, as uint8, shape (batch, height, width, channels); docs/images.md tells how it is read.

    Args:
        column: the files' paths or addresses.
        size: (height, width) in pixels.
        color: "rgb" or "grayscale".
        resize: "nearest", "bilinear" or "area".
    """

    column: str
    size: tuple[int, int]
    color: Color = "rgb"
    resize: Resize = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))


@dataclass(frozen=True)
class Mask:
    """An image file whose pixels are the numbers of classes, shape (batch, height, width, 1).

    The numbers come through as they are: of a palette the index, not the color; resized by taking the nearest pixel.

    Args:
        column: the files' paths or addresses.
        size: (height, width) in pixels.
        dtype: "uint8" or "int32"; a number that does not fit makes a bad sample.
    """

    column: str
    size: tuple[int, int]
    dtype: MaskType = "uint8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))


Spec: TypeAlias = Numbers | Label | Image | Mask


def _checked_classes(given: Any) -> tuple[str, ...] | tuple[int, ...]:
    """Classes as a user gave them.

    Raises:
        ConfigError: they are not different texts, or different whole numbers.
    """
    classes = tuple(name.item() if isinstance(name, np.generic) else name for name in given)
    kinds = {type(name) for name in classes}
    if isinstance(given, str) or kinds not in ({str}, {int}):
        raise ConfigError(f"classes must be a list of texts or a list of whole numbers, not {given!r:.80}")
    if len(set(classes)) != len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise ConfigError(f"class {twice!r} is named twice in classes: every class needs one number")
    return classes
