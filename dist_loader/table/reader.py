"""Reads the rows of a table: numbers and labels out of its columns, images and masks out of the files they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from dist_loader.errors import SampleError
from dist_loader.readers.crop import Box, Crop, crop_box
from dist_loader.remote.address import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dist_loader.readers import Paths


class Cells(Protocol):
    """What a column holds itself."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample's array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""

    def read(self, numbers: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Write what some samples have into `out`, shape (n, *shape)."""


class Files(Protocol):
    """What the files have that a column names: an `ImageReader` or a `MaskReader`."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a sample."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample's array."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""

    def read_one(self, number: int, box_of: Callable[[int, int], Box], place: npt.NDArray[Any]) -> float:
        """Decode one; seconds spent fetching its file."""


@dataclass(frozen=True)
class TableReader:
    """Reads rows as several arrays by name.

    Args:
        cells: columns that hold what is wanted.
        files: columns that name files.
        paths: where those are, by the same names.
        aligned: whether all files of a row must show the same thing, as an image and its mask do: of one size.
        crop: which part of each file is taken: the same of all files of a row that have one size.
        seed: of random crops.
        title: of the table, for a row that has no files.
    """

    cells: Mapping[str, Cells]
    files: Mapping[str, Files]
    paths: Mapping[str, Paths]
    aligned: bool = False
    crop: Crop = "stretch"
    seed: int = 0
    title: str = "the table"

    @property
    def shape(self) -> dict[str, tuple[int, ...]]:
        """Shape of a sample's arrays."""
        return {name: part.shape for name, part in self._parts().items()}

    @property
    def dtype(self) -> dict[str, np.dtype[Any]]:
        """Type of their elements."""
        return {name: part.dtype for name, part in self._parts().items()}

    def _parts(self) -> dict[str, Files | Cells]:
        return {**self.files, **self.cells}

    def name(self, number: int) -> str:
        """The path of a row's first file, or the row."""
        for paths in self.paths.values():
            path = redacted(paths.path(number))
            return path if path.isprintable() else repr(path)
        return f"row {number} of {self.title}"

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: dict[str, npt.NDArray[Any]]) -> float:
        """Read rows into `out`; seconds spent fetching files.

        Raises:
            SampleError: a file that is missing or cannot be decoded; a mask that is not as large as its image.
        """
        for name, cells in self.cells.items():
            cells.read(numbers, out[name])
        if not self.files:
            return 0.0
        fetching = 0.0
        for at, number in enumerate(numbers.tolist()):  # by row: those before a bad one must be whole
            fetching += self._read_files(number, epoch, {name: out[name][at] for name in self.files})
        return fetching

    def _read_files(self, number: int, epoch: int, places: Mapping[str, npt.NDArray[Any]]) -> float:
        fetching, first = 0.0, ("", (0, 0))
        for name, files in self.files.items():
            found = [(0, 0)]

            def box_of(
                height: int, width: int, size: tuple[int, int] = files.size, found: list[tuple[int, int]] = found
            ) -> Box:
                found[0] = height, width
                return crop_box(self.crop, height, width, size, self.seed, epoch, number)

            fetching += files.read_one(number, box_of, places[name])
            if not first[0]:
                first = name, found[0]
            elif self.aligned and found[0] != first[1]:
                other = redacted(self.paths[first[0]].path(number))
                raise SampleError(
                    number,
                    redacted(self.paths[name].path(number)),
                    f"{_size(found[0])} (height x width), and {other!r} has {_size(first[1])}: a mask and its "
                    f"image must be of one size",
                )
        return fetching


def _size(pixels: tuple[int, int]) -> str:
    return f"{pixels[0]} x {pixels[1]} pixels"
