"""Arrays in one file, opened by memory map in the time that it takes to read a header.

The format is safetensors: 8 bytes with the length of a JSON header, the header, then the arrays one after the other.
One file can be replaced at once, so nobody ever sees half of it; all processes that open it share its pages; and it
takes NumPy only, where importing Arrow would cost every rank half a second and 27 MB (measured).
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import contextlib
import json
import mmap
import operator
import os
import secrets
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

_TYPES: dict[str, np.dtype[Any]] = {"I64": np.dtype("<i8"), "I32": np.dtype("<i4"), "U8": np.dtype("u1")}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
_ALIGNMENT = 64  # of the first array
_LARGEST_HEADER = 100_000_000  # bytes, as in the format's own library
_KIND = "dist_loader.index"
VERSION = 1

UNFINISHED = ".part"  # how the name of a file ends that is still being written, or was when its writer was killed


class Blocks(NamedTuple):
    """A 1-D array that is made piece by piece while it is written."""

    dtype: np.dtype[Any]
    length: int
    blocks: Iterable[NDArray[Any]]


class OpenFile:
    """A descriptor that is closed when it is forgotten."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number).atexit = False  # threads may still read at the program's end


class Opened(NamedTuple):
    """What a file holds.

    Attributes:
        header: the caller's own.
        arrays: by name, read-only, in mapped memory.
        starts: where each array begins in the file.
        file: the file.
    """

    header: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    starts: dict[str, int]
    file: OpenFile


def whole(array: NDArray[Any]) -> Blocks:
    """An array that is there already."""
    return Blocks(array.dtype, len(array), [array])


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file's temporary name: on success, it is on the disk and takes the place of `path`; otherwise it is gone.

    Raises:
        ConfigError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            yield temporary
            os.fsync(handle)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigError(
            f"cannot write index {str(path)!r}: {error.strerror}; make room or let this user write there, "
            f"or name another place"
        ) from error


def write(path: Path, header: Mapping[str, Any], arrays: Mapping[str, Blocks]) -> None:
    """Write a file whose name exists, not yet safely (see `replacing`).

    Args:
        path: the file.
        header: what JSON can hold.
        arrays: by name.
    """
    arrays = _aligned(arrays)
    with path.open("r+b") as file:
        file.write(_head(header, arrays))
        for array in arrays.values():
            written = 0
            for block in array.blocks:
                written += len(block)
                file.write(np.ascontiguousarray(block, array.dtype).data)
            if written != array.length:
                raise AssertionError(f"{written} elements written, {array.length} announced")


def write_header(path: Path, header: Mapping[str, Any]) -> None:
    """Write the header of a written file again; it must have kept its length."""
    head = _head(header, _aligned({name: whole(array) for name, array in read(path).arrays.items()}))
    with path.open("r+b") as file:
        if len(head) != 8 + int.from_bytes(file.read(8), "little"):
            raise AssertionError("a header of another length would overwrite the arrays")
        file.seek(0)
        file.write(head)


def read(path: Path) -> Opened:
    """Open a file that `write` wrote. Reads the header only; the arrays' pages come when they are touched.

    Raises:
        ConfigError: there is none, it is no such file, of another version, or not as long as it must be.
    """
    try:
        with path.open("rb") as given:
            file = OpenFile(os.dup(given.fileno()))
        if not os.fstat(file.number).st_size:
            raise _bad(path, "it is empty")
        memory = mmap.mmap(file.number, 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ConfigError(f"index {str(path)!r} does not exist; make it with Index.from_directory(...).save") from None
    except OSError as error:
        raise ConfigError(f"cannot read index {str(path)!r}: {error.strerror}") from error
    length = int.from_bytes(memory[:8], "little")
    if not 2 <= length <= min(_LARGEST_HEADER, len(memory) - 8):
        raise _bad(path, "it is no index, or cut off")
    try:
        table = json.loads(memory[8 : 8 + length])
        metadata = table.pop("__metadata__")
        version, header = int(metadata["version"]), dict(json.loads(metadata[_KIND]))
        places = {name: _place(entry) for name, entry in table.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _bad(path, "it is no index, or damaged") from None
    if version != VERSION:
        raise _bad(path, f"it has format version {version}, and this is dist_loader for version {VERSION}")
    first = 8 + length
    end = first + max((place.stop for place in places.values()), default=0)
    if end != len(memory):
        raise _bad(path, f"it must be {end:,} bytes long and has {len(memory):,}")
    starts = {name: first + place.start for name, place in places.items()}
    arrays = {name: np.frombuffer(memory, at.dtype, at.elements, starts[name]) for name, at in places.items()}
    return Opened(header, arrays, starts, file)


class _Place(NamedTuple):
    dtype: np.dtype[Any]
    elements: int
    start: int
    stop: int


def _place(entry: Any) -> _Place:
    """Where an array lies, from its entry in the header; a ValueError or the like if that makes no sense."""
    (elements,), (start, stop) = entry["shape"], entry["data_offsets"]
    place = _Place(_TYPES[entry["dtype"]], operator.index(elements), operator.index(start), operator.index(stop))
    if elements < 0 or start < 0 or stop - start != elements * place.dtype.itemsize:
        raise ValueError("impossible place")
    return place


def _aligned(arrays: Mapping[str, Blocks]) -> dict[str, Blocks]:
    """Those with larger elements first, so that each begins at a multiple of its elements' size."""
    return dict(sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize))


def _head(header: Mapping[str, Any], arrays: Mapping[str, Blocks]) -> bytes:
    # Our header is text within the format's own: names that are not text would break other programs' JSON.
    table: dict[str, Any] = {"__metadata__": {"version": str(VERSION), _KIND: json.dumps(header)}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.length * array.dtype.itemsize
        table[name] = {"dtype": _NAMES[array.dtype], "shape": [array.length], "data_offsets": [start, end]}
    text = json.dumps(table).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _bad(path: Path, reason: str) -> ConfigError:
    return ConfigError(f"cannot use index {str(path)!r}: {reason}; remove it, and make it again")
