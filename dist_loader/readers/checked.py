"""A user's own reader, held to what the protocol asks for: a mistake in it is an error that says so."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dist_loader.arrays import rows
from dist_loader.errors import ConfigError, DistLoaderError, SampleError

if TYPE_CHECKING:
    from dist_loader.readers import SampleReader

_NEEDED = ("samples", "fingerprint", "shape", "dtype", "read", "name")


class CheckedReader:
    """Reads what a user's reader reads.

    Args:
        reader: the user's.

    Raises:
        ConfigError: it lacks something, or what it says of its samples makes no sense.
    """

    def __init__(self, reader: SampleReader) -> None:
        self._who = type(reader).__name__
        for name in _NEEDED:
            if not hasattr(type(reader), name) and not hasattr(reader, name):  # the class's first: no property is run
                raise ConfigError(f"{self._who} has no {name!r}, and a reader needs it (docs/readers.md)")
        self._reader = reader
        samples = reader.samples
        if isinstance(samples, bool) or not isinstance(samples, int | np.integer) or samples < 1:
            raise ConfigError(f"samples of {self._who} must be a whole number of at least 1, not {samples!r:.80}")
        self.samples = int(samples)
        self.shape, self.dtype = self._specified(reader.shape, reader.dtype)

    @property
    def fingerprint(self) -> str:
        """What the user's reader says."""
        return self._reader.fingerprint

    def name(self, number: int) -> str:
        """What the user's reader calls a sample."""
        return self._reader.name(number)

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: Any) -> float | None:
        """Have samples read into `out`.

        Raises:
            SampleError: a sample could not be read.
            DistLoaderError: the reader did something else than the protocol says.
        """
        given = (
            MappingProxyType(out) if isinstance(out, dict) else out
        )  # out["x"] = ... would leave the frame as it was
        asked = numbers.tolist()
        try:
            seconds: Any = self._reader.read(numbers, epoch, given)
        except SampleError as error:
            if error.sample not in asked:
                reason = f"a SampleError for sample {error.sample}, which was not asked for"
                raise self._failed(asked, reason) from error
            before = asked.index(error.sample)
            if before:  # they count as read, and a reader may have been in the middle of all
                self.read(numbers[:before], epoch, rows(out, slice(0, before)))
            raise SampleError(int(error.sample), os.fspath(error.path), error.reason) from error
        except Exception as error:
            words = " ".join(str(error).split())
            if isinstance(error, TypeError) and "mappingproxy" in words:
                words += '; write with out["name"][...] = values'
            raise self._failed(asked, f"{type(error).__name__}: {words}") from error
        if seconds is not None and not isinstance(seconds, int | float):
            reason = f"read returned a {type(seconds).__name__}; it is to write into `out` and return None, or seconds"
            raise self._failed(asked, reason)
        return None if seconds is None else float(seconds)

    def _failed(self, asked: list[int], reason: str) -> DistLoaderError:
        samples = f"sample {asked[0]}" if len(asked) == 1 else f"samples {asked[0]} to {asked[-1]} ({len(asked)})"
        return DistLoaderError(
            f"{self._who} failed on {samples}: {reason} (for a sample that is bad, a reader raises SampleError)"
        )

    def _specified(self, shapes: Any, dtypes: Any) -> tuple[Any, Any]:
        """Shape and type, or dictionaries of them, as NumPy has them."""
        if not isinstance(shapes, Mapping):
            return self._shape("shape", shapes), self._dtype("dtype", dtypes)
        if not shapes or not isinstance(dtypes, Mapping) or set(shapes) != set(dtypes):
            raise ConfigError(
                f"shape and dtype of {self._who} must be dictionaries of the same names, not {dict(shapes)!r:.80} and "
                f"{dtypes!r:.80}"
            )
        return (
            {name: self._shape(f"shape[{name!r}]", shape) for name, shape in shapes.items()},
            {name: self._dtype(f"dtype[{name!r}]", dtypes[name]) for name in shapes},
        )

    def _shape(self, what: str, shape: Any) -> tuple[int, ...]:
        sides = shape if isinstance(shape, tuple | list) else [None]
        if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in sides):
            raise ConfigError(
                f"{what} of {self._who} must be a tuple of whole numbers above 0, the shape of a sample, not {shape!r}"
            )
        return tuple(map(int, sides))

    def _dtype(self, what: str, dtype: Any) -> np.dtype[Any]:
        found: np.dtype[Any]
        try:
            found = np.dtype(dtype)
        except TypeError:
            found = np.dtype(object)
        if dtype is None or found.hasobject or found.kind in "USMm":
            raise ConfigError(f"{what} of {self._who} must be a type of numbers, such as np.float32, not {dtype!r}")
        return found
