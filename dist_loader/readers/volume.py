"""One `.npy` file per sample: the reader of a `VolumeSequence`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import SampleError
from dist_loader.readers.npy import NpyError, array_in
from dist_loader.readers.reason import reason_of
from dist_loader.readers.source import Source
from dist_loader.remote.address import redacted

if TYPE_CHECKING:
    from dist_loader.index import Index
    from dist_loader.sequence.data import Numbers


@dataclass(frozen=True, eq=False)
class VolumeReader:
    """Reads arrays of one shape, each from a file of its own.

    Attributes:
        index: the files.
        file_shape: of the array in each.
        dtype: of the elements in a batch.
        stored: the type, byte order apart, that elements have in the files; None: any that becomes `dtype` without
            becoming another kind of number (NumPy's "same_kind").
        add_channel: whether a last axis of length 1 is added.
        expected: why it is that shape and type, for errors.
        source: how the files are read; as files of this machine, unless it is told otherwise.
    """

    index: Index
    file_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stored: np.dtype[Any] | None
    add_channel: bool = False
    expected: str = "asked for"
    source: Source = field(default_factory=Source)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a sample."""
        return (*self.file_shape, 1) if self.add_channel else self.file_shape

    def name(self, number: int) -> str:
        """The path of a sample's file; if it is not printable, quoted and escaped."""
        path = redacted(self.index.path(number))
        return path if path.isprintable() else repr(path)

    def read(self, numbers: Numbers, epoch: int, out: npt.NDArray[Any]) -> float:
        """Read samples into `out`, shape (n, *shape); seconds spent fetching the files.

        Raises:
            SampleError: a file that is missing, could not be fetched, is damaged, or holds another kind of array.
        """
        fetching = 0.0
        places = out.reshape(-1, *self.file_shape)
        for at, number in enumerate(numbers.tolist()):
            path = self.index.path(number)
            try:
                started = time.perf_counter()
                content = self.source.read(path)
                fetching += time.perf_counter() - started
                with self.source.decoding:
                    volume = array_in(content)
                    self._check(volume)
                    places[at] = volume
            except Exception as error:  # whatever a broken file or a library for remote files leads to
                raise SampleError(number, redacted(path), reason_of(error)) from error
        return fetching

    def _check(self, volume: npt.NDArray[Any]) -> None:
        if volume.shape != self.file_shape:
            raise NpyError(f"an array of shape {volume.shape}, and {self.file_shape} is {self.expected}")
        if self.stored is None:
            if not np.can_cast(volume.dtype, self.dtype, "same_kind"):
                raise NpyError(f"an array of {volume.dtype}, which does not become {self.dtype} without loss")
        elif volume.dtype != self.stored and volume.dtype.newbyteorder("=") != self.stored:
            raise NpyError(f"an array of {volume.dtype}, and {self.stored} is {self.expected}; give dtype to convert")
