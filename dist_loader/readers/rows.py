"""Arrays with a row for each sample, in memory or in a file, and how their rows are read into a batch."""

from __future__ import annotations

import contextlib
import math
import os
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from dist_loader.readers.npy import NpyError
from dist_loader.readers.opening import with_retries
from dist_loader.readers.reason import reason_of

if TYPE_CHECKING:
    from dist_loader.sequence.data import Numbers

_ONE_BY_ONE = 4096  # bytes of a row from which copying it alone is as fast as gathering many (measured)


class RowError(Exception):
    """A row that could not be read; those before it have been.

    Attributes:
        at: its place among the numbers that were asked for.
        reason: what went wrong.
    """

    def __init__(self, at: int, reason: str) -> None:
        self.at = at
        self.reason = reason
        super().__init__(f"row at place {at}: {reason}")


class _CutOff(Exception):
    def __init__(self, got: int, reason: str) -> None:
        self.got = got
        self.reason = reason
        super().__init__(reason)


class Rows(Protocol):
    """An array whose rows can be read by their numbers, from several threads at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array: (rows, ...)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements, as they are stored."""

    def read(self, numbers: Numbers, out: npt.NDArray[Any]) -> float:
        """Read rows, one after the other, into given memory.

        Args:
            numbers: which, int64, shape (n,), n at least 1.
            out: where to, shape (n, ...), C-contiguous; elements are converted to its type.

        Returns:
            Seconds of it that were spent fetching what is stored.

        Raises:
            RowError: one could not be read.
        """

    def name(self, number: int) -> str:
        """What a person would call a row."""


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """The rows of a NumPy array, of any strides; of one that is mapped, too.

    Attributes:
        array: of shape (rows, ...).
        title: what a person would call it.
    """

    array: npt.NDArray[Any]
    title: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole array."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its elements."""
        return self.array.dtype

    def read(self, numbers: Numbers, out: npt.NDArray[Any]) -> float:
        """Copy rows into `out`."""
        if _consecutive(numbers):
            out[...] = self.array[numbers[0] : numbers[-1] + 1]
        elif out.nbytes >= _ONE_BY_ONE * len(out):
            for at, number in enumerate(numbers.tolist()):
                out[at] = self.array[number]
        elif self.array.flags.c_contiguous and self.array.flags.aligned and self.array.dtype == out.dtype:
            # Without the GIL. Of any other array, np.take would make a copy, of all of it.
            np.take(self.array, numbers, axis=0, out=out, mode="clip")
        else:
            out[...] = self.array[numbers]
        return 0.0

    def name(self, number: int) -> str:
        """The array and the row."""
        return f"{self.title}[{number}]"


@dataclass(frozen=True, eq=False)
class ForeignRows:
    """The rows of something like an array, such as a data set of an HDF5 or a Zarr file.

    Attributes:
        array: has `shape`, `dtype`, `array[number]` and `array[start:stop]`, for several threads at once.
        shape: of the whole array.
        dtype: of its elements.
        title: what a person would call it.
    """

    array: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    title: str

    def read(self, numbers: Numbers, out: npt.NDArray[Any]) -> float:
        """Copy rows into `out`."""
        started = time.perf_counter()
        if _consecutive(numbers):
            with contextlib.suppress(Exception):  # read one by one, the row that cannot be read is found
                out[...] = self.array[int(numbers[0]) : int(numbers[-1]) + 1]
                return time.perf_counter() - started
        for at, number in enumerate(numbers.tolist()):
            try:
                out[at] = self.array[number]
            except Exception as error:  # whatever library it is of
                raise RowError(at, reason_of(error)) from error
        return time.perf_counter() - started

    def name(self, number: int) -> str:
        """The array and the row."""
        return f"{self.title}[{number}]"


class FileRows:
    """The rows of an array in a file of this machine, each read by its place in it.

    Not by a memory map: for a row that is not in memory yet, a map reads 128 KiB, page fault by page fault, and a file
    that becomes shorter kills the process. Here the system is told which rows will be read: random rows of 3 kB of a
    large file came at 3.4 times a map's rate, and 2.3 times their bytes were read and not 55 (benchmarks/arrays.py).

    Args:
        path: for messages.
        file: its descriptor, which from then on is closed with this object.
        start: bytes of the file before the first row.
        shape: of the whole array, in C order; no length is 0.
        dtype: of its elements.

    Raises:
        NpyError: the file is shorter than that.
    """

    def __init__(self, path: str, file: int, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.path = path
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._start = start
        self._row = math.prod(shape[1:]) * dtype.itemsize
        needed, there = start + shape[0] * self._row, os.fstat(file).st_size
        if there < needed:
            raise NpyError(f"a file that is cut off: {there} of {needed} bytes, for an array of shape {shape}")
        weakref.finalize(self, os.close, file)

    def read(self, numbers: Numbers, out: npt.NDArray[Any]) -> float:
        """Read rows into `out`."""
        started = time.perf_counter()
        same = out.dtype == self.dtype
        rows = out if same else np.empty(out.shape, self.dtype)
        memory = memoryview(rows.reshape(-1).view(np.uint8))  # type: ignore[arg-type]  # an array has a buffer
        if _consecutive(numbers):
            firsts, length = [int(numbers[0])], len(memory)
        else:
            firsts, length = numbers.tolist(), self._row
            for first in firsts:  # so that a disk is asked for all of them at once
                os.posix_fadvise(self._file, self._start + first * self._row, length, os.POSIX_FADV_WILLNEED)
        done = 0
        try:
            for first in firsts:
                done += self._fill(memory[done : done + length], self._start + first * self._row)
        except _CutOff as error:
            whole = (done + error.got) // self._row
            out[:whole] = rows[:whole]
            raise RowError(whole, error.reason) from error
        if not same:
            out[...] = rows
        return time.perf_counter() - started

    def _fill(self, memory: memoryview, start: int) -> int:
        """Read so many bytes of the file; how many."""
        try:
            if os.preadv(self._file, (memory,), start) == len(memory):
                return len(memory)
        except OSError:
            pass  # it may pass
        got = 0

        def rest(_: str) -> bytes:
            nonlocal got
            while more := os.preadv(self._file, (memory[got:],), start + got):
                got += more
            return b""

        try:
            with_retries(rest, self.path)
        except OSError as error:
            raise _CutOff(got, reason_of(error)) from error
        if got < len(memory):
            raise _CutOff(got, "the file has been cut off since it was opened")
        return got

    def name(self, number: int) -> str:
        """The file and the row."""
        return f"{self.path}[{number}]"


def _consecutive(numbers: Numbers) -> bool:
    """Whether the numbers are those of a slice."""
    return bool(numbers[-1] - numbers[0] == len(numbers) - 1 and (np.diff(numbers) == 1).all())
