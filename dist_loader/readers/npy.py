"""What is in a .npy file, from its bytes; nothing in them is ever unpickled.

The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from dist_loader.readers.source import Content

MAGIC = b"\x93NUMPY"
MOST_BYTES = 10_000  # of a header, as NumPy has it: its text is parsed as Python literals
_LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I"}  # how a version spells its header's length; 3 is for named fields
_READ = {b"\x01\x00": np.lib.format.read_array_header_1_0, b"\x02\x00": np.lib.format.read_array_header_2_0}


class NpyError(ValueError):
    """Content that is no array of numbers, in words for a person."""


@dataclass(frozen=True)
class Header:
    """What a .npy file says of its array.

    Attributes:
        shape: of the array.
        dtype: of its elements, with the byte order of the file.
        fortran: whether the first axis is the one that changes fastest.
        start: bytes of the file before the elements.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize


def header_of(content: Content) -> Header:
    """The header at the beginning of a .npy file's content.

    Raises:
        NpyError: it is none, is cut off, or is not that of an array of numbers.
    """
    if bytes(content[:6]) != MAGIC:
        raise NpyError("not a .npy file" if len(content) else "an empty file")
    form = _LENGTHS.get(bytes(content[6:8]))
    if form is None:
        raise NpyError(f"a .npy file of an unknown version, {'.'.join(map(str, content[6:8]))}")
    text = 8 + struct.calcsize(form)
    if len(content) < text:
        raise NpyError("a .npy file that is cut off in its header")
    length = struct.unpack(form, content[8:text])[0]
    if length > MOST_BYTES:
        raise NpyError(f"a .npy file with a header of {length} bytes, more than the {MOST_BYTES} that are read")
    if len(content) < text + length:
        raise NpyError("a .npy file that is cut off in its header")
    return _parsed(bytes(content[: text + length]))


@lru_cache(256)  # the files of a data set mostly share one header, and parsing it takes as long as reading 100 kB
def _parsed(header: bytes) -> Header:
    file = io.BytesIO(header)
    file.seek(8)
    try:
        shape, fortran, dtype = _READ[header[6:8]](file, max_header_size=MOST_BYTES)
    except Exception as error:  # the text may lead Python's parser to any
        raise NpyError(f"a .npy file with a damaged header: {' '.join(str(error).split()):.100}") from error
    if any(length < 0 for length in shape):
        raise NpyError(f"a .npy file of the impossible shape {shape}")
    check_numbers(dtype)
    return Header(shape, dtype, fortran, len(header))


def check_numbers(dtype: np.dtype[Any]) -> None:
    """Whether an array can be made a tensor.

    Raises:
        NpyError: it holds Python objects, named fields, or something else that is no number.
    """
    if dtype.hasobject:
        raise NpyError("an array of Python objects, which are never loaded; save an array of numbers")
    if dtype.names is not None:
        raise NpyError(f"an array with the fields {', '.join(dtype.names)}; give each as an array of its own")
    if dtype.kind not in "biufc":
        raise NpyError(f"an array of {dtype}, and not of numbers")


def array_in(content: Content) -> npt.NDArray[Any]:
    """The array in a .npy file's content; a view of it.

    Raises:
        NpyError: it is not whole, or not an array of numbers.
    """
    header = header_of(content)
    there = len(content) - header.start
    if there < header.nbytes:
        raise NpyError(
            f"a .npy file that is cut off: {there} of the {header.nbytes} bytes of an array of shape {header.shape}"
        )
    elements = np.frombuffer(content, header.dtype, math.prod(header.shape), header.start)
    return elements.reshape(header.shape, order="F" if header.fortran else "C")


def kept_dtype(dtype: np.dtype[Any], floats: str) -> np.dtype[Any]:
    """The type of elements in a batch: floats wider than Keras's own are made those, as Keras does; others stay.

    Args:
        dtype: as stored.
        floats: `keras.backend.floatx()`.
    """
    widest = np.dtype(np.float64 if floats == "float64" else np.float32)
    return widest if dtype.kind == "f" and dtype.itemsize > widest.itemsize else dtype.newbyteorder("=")
