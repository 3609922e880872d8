"""What the items of a stream are like, and the arrays of a batch that they are written into."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_loader.frames import aligned_empty

_PARTS = ("x", "y", "weight")
_NUMBERS = "biufc"  # kinds of dtypes that hold numbers
_LOOKED_AT = 1024  # elements of an array


@dataclass(frozen=True)
class Leaf:
    """One of the arrays of an item.

    Attributes:
        name: where in the item it is, such as "x['left']".
        shape: of one item's.
        dtype: of its elements.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Kind:
    """The structure of all items of a stream, as the first one shows it.

    Attributes:
        structure: `(x,)`, `(x, y)` or `(x, y, weight)`; dictionaries and tuples whose leaves are numbers of `leaves`.
        leaves: the arrays in it.
    """

    structure: tuple[Any, ...]
    leaves: tuple[Leaf, ...]

    @classmethod
    def of(cls, item: Any) -> Kind:
        """The kind of an item.

        Raises:
            ValueError: it holds something else than numbers.
        """
        leaves: list[Leaf] = []

        def look(part: Any, name: str, weight: bool) -> Any:
            if isinstance(part, Mapping):
                return {key: look(inner, f"{name}[{key!r}]", weight) for key, inner in part.items()}
            if isinstance(part, tuple):
                return tuple(look(inner, f"{name}[{at}]", weight) for at, inner in enumerate(part))
            array = _array(part, name)
            leaves.append(Leaf(name, array.shape, np.dtype(np.float32) if weight else array.dtype))
            return len(leaves) - 1

        found = tuple(look(part, name, name == "weight") for part, name in zip(_parts(item), _PARTS, strict=False))
        if len(found) == 3 and not isinstance(found[2], int):
            raise ValueError("the weight of an item must be a number or one array")
        return cls(found, tuple(leaves))

    @cached_property
    def text(self) -> str:
        """For people, and for ranks to compare."""
        return ", ".join(f"{leaf.name} {leaf.dtype}{leaf.shape}" for leaf in self.leaves)

    @property
    def digest(self) -> int:
        """A number that differs when the text does; not 0."""
        return zlib.crc32(self.text.encode()) + 1

    @property
    def item_bytes(self) -> int:
        """Memory of one item."""
        return max(1, sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in self.leaves))

    @property
    def weight(self) -> int | None:
        """Which leaf is the weight, if there is one."""
        return self.structure[2] if len(self.structure) == 3 else None

    def empty(self, rows: int) -> list[npt.NDArray[Any]]:
        """Arrays for so many items, not initialised, aligned so that TensorFlow takes them over without a copy."""
        return [aligned_empty((rows, *leaf.shape), leaf.dtype) for leaf in self.leaves]

    def write(self, item: Any, arrays: list[npt.NDArray[Any]], row: int) -> None:
        """Copy an item into a row of the arrays.

        Raises:
            ValueError: it is of another kind.
        """
        parts = _parts(item)
        if len(parts) != len(self.structure):
            raise ValueError(f"it has {len(parts)} parts, and the first item had {len(self.structure)}: {self.text}")
        for part, known, name in zip(parts, self.structure, _PARTS, strict=False):
            self._write(part, known, name, arrays, row)

    def _write(self, part: Any, known: Any, name: str, arrays: list[npt.NDArray[Any]], row: int) -> None:
        if isinstance(known, int):
            leaf, array = self.leaves[known], _array(part, name)
            if known == self.weight:
                array = array.astype(np.float32)
                if not (np.isfinite(array).all() and (array >= 0).all()):
                    raise ValueError(f"its weight must be 0 or more, and finite, not {part!r:.80}")
                array = np.abs(array)  # no negative zeros: those mark the fill
            if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
                raise ValueError(
                    f"{name} is {array.dtype}{array.shape}, and was {leaf.dtype}{leaf.shape} in the first item"
                )
            arrays[known][row] = array
        elif isinstance(known, dict):
            if not isinstance(part, Mapping) or set(part) != set(known):
                raise ValueError(f"{name} must have the keys {', '.join(map(repr, known))}, as in the first item")
            for key, inner in known.items():
                self._write(part[key], inner, f"{name}[{key!r}]", arrays, row)
        else:
            if not isinstance(part, tuple) or len(part) != len(known):
                raise ValueError(f"{name} must be a tuple of {len(known)}, as in the first item")
            for at, inner in enumerate(known):
                self._write(part[at], inner, f"{name}[{at}]", arrays, row)

    def parts(self, arrays: list[npt.NDArray[Any]]) -> tuple[Any, ...]:
        """The arrays in the structure of an item."""

        def made(known: Any) -> Any:
            if isinstance(known, int):
                return arrays[known]
            if isinstance(known, dict):
                return {key: made(inner) for key, inner in known.items()}
            return tuple(made(inner) for inner in known)

        return tuple(made(known) for known in self.structure)


def _parts(item: Any) -> tuple[Any, ...]:
    """Inputs, targets and weight of an item, as far as it has them."""
    if not isinstance(item, tuple):
        return (item,)
    if not 1 <= len(item) <= 3:
        raise ValueError(f"an item is x, (x, y) or (x, y, weight), not a tuple of {len(item)}")
    return item


def _array(part: Any, name: str) -> npt.NDArray[Any]:
    array = np.asarray(part, np.float32) if isinstance(part, float) else np.asarray(part)
    if array.dtype.kind not in _NUMBERS:
        raise ValueError(f"{name} holds no numbers but {type(part).__name__} (dtype {array.dtype})")
    return array


def mark_of(item: Any) -> int:
    """A number that differs for most items that differ, from 0 to 2^32 - 1: a checksum of part of what is in it."""
    return _mark(item, 0)


def _mark(part: Any, so_far: int) -> int:
    if isinstance(part, Mapping):
        for key, inner in part.items():
            so_far = _mark(inner, zlib.crc32(repr(key).encode(), so_far))
        return so_far
    if isinstance(part, tuple | list):
        for inner in part[:_LOOKED_AT]:
            so_far = _mark(inner, so_far)
        return so_far
    if isinstance(part, np.ndarray | np.generic) and part.dtype.kind in _NUMBERS:
        array = np.asarray(part)
        some = np.ascontiguousarray(array.reshape(-1)[:_LOOKED_AT])
        return zlib.crc32(some.tobytes(), zlib.crc32(f"{array.shape}{array.dtype}".encode(), so_far))
    known = part if isinstance(part, str | bytes | int | float | None) else type(part).__name__
    return zlib.crc32(repr(known).encode(), so_far)
