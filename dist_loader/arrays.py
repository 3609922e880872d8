"""The arrays of a batch: one, or several by name, in one piece of memory."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dist_loader.frames import ALIGNMENT, Frame, aligned_empty

if TYPE_CHECKING:
    from dist_loader.readers import Reader

Arrays: TypeAlias = npt.NDArray[Any] | dict[str, npt.NDArray[Any]]
ONLY = ""  # the name of the array of a reader that has just one

_BYTE = np.dtype(np.uint8)


@dataclass(frozen=True)
class Field:
    """One of the arrays in the memory of a batch.

    Attributes:
        name: by which a reader knows it; `ONLY` if there are no others.
        shape: of the whole batch.
        dtype: of its elements.
        start: where it begins in the memory, in bytes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @property
    def stop(self) -> int:
        """Where it ends."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """Where the arrays of a batch are in a frame: one after the other, each aligned as TensorFlow likes it.

    Attributes:
        fields: the arrays; a single one of the name `ONLY` is the frame itself.
    """

    fields: tuple[Field, ...]

    @classmethod
    def of(cls, reader: Reader, batch: int) -> Layout:
        """The layout of a reader's batches of so many samples."""
        fields: list[Field] = []
        for name, (shape, dtype) in specification(reader).items():
            start = -(-fields[-1].stop // ALIGNMENT) * ALIGNMENT if fields else 0
            fields.append(Field(name, (batch, *shape), dtype, start))
        return cls(tuple(fields))

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Shape of a frame."""
        return self.fields[0].shape if self._single else (self.fields[-1].stop,)

    @property
    def frame_dtype(self) -> np.dtype[Any]:
        """Type of a frame's elements."""
        return self.fields[0].dtype if self._single else _BYTE

    @property
    def _single(self) -> bool:
        return len(self.fields) == 1 and self.fields[0].name == ONLY

    def arrays(self, frame: Frame) -> Arrays:
        """The arrays that lie in a frame, or in a view of one."""
        if self._single:
            return frame
        return {
            field.name: frame[field.start : field.stop].view(field.dtype).reshape(field.shape) for field in self.fields
        }


def specification(reader: Reader) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of each array of a reader's samples, by name."""
    shapes, dtypes = reader.shape, reader.dtype
    if not isinstance(shapes, Mapping):
        return {ONLY: (tuple(shapes), np.dtype(dtypes))}  # type: ignore[arg-type]
    assert isinstance(dtypes, Mapping)
    return {name: (tuple(shape), np.dtype(dtypes[name])) for name, shape in shapes.items()}


def sample_bytes(reader: Reader) -> int:
    """Bytes of one sample of a reader, all its arrays together."""
    return sum(math.prod(shape) * dtype.itemsize for shape, dtype in specification(reader).values())


def rows(arrays: Arrays, part: slice) -> Arrays:
    """Some rows of all arrays; views."""
    if isinstance(arrays, dict):
        return {name: array[part] for name, array in arrays.items()}
    return arrays[part]


def shortened(arrays: Arrays, names: Collection[str], length: int) -> Arrays:
    """The beginning of the second axis of some arrays, each in memory of its own where it is not all."""
    return {name: _shortened(array, length) if name in names else array for name, array in by_name(arrays).items()}


def _shortened(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    if array.shape[1] == length:
        return array
    short = aligned_empty((array.shape[0], length, *array.shape[2:]), array.dtype)
    short[...] = array[:, :length]
    return short


def by_name(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """The arrays by name, a single one by the name `ONLY`."""
    return arrays if isinstance(arrays, dict) else {ONLY: arrays}
