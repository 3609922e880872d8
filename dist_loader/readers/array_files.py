"""The rows of arrays in `.npy` and `.npz` files of this machine."""

from __future__ import annotations

import mmap
import os
import stat
import struct
import zipfile
from typing import Any, Literal

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.readers.npy import MOST_BYTES, Header, NpyError, header_of
from dist_loader.readers.opening import opened
from dist_loader.readers.reason import reason_of
from dist_loader.readers.rows import FileRows, MemoryRows, Rows
from dist_loader.remote.address import redacted, scheme_of

_LEAST = 1024  # bytes of a row: smaller ones come faster out of a map, and fill its pages (measured)
_LOCAL = 30  # bytes of a ZIP's header before a member, without the lengths that stand at 26 (APPNOTE.TXT, 4.3.7)


def rows_of_file(path: str) -> Rows:
    """The rows of the array in a file: "a.npy", "a.npz" if it has one member, else "a.npz/member".

    Raises:
        ConfigError: there is no such file or member, or no array of numbers that can be read row by row.
    """
    if scheme_of(path) is not None:
        raise ConfigError(f"{redacted(path)!r}: rows are read from files of this machine; copy it to a disk first")
    before, archive, member = path.partition(".npz/")
    try:
        if archive and os.path.isfile(f"{before}.npz"):  # noqa: PTH113 (as the path was given)
            return _opened(f"{before}.npz", member)
        return _opened(path, None)
    except (OSError, NpyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"cannot open {path!r}: {reason_of(error)}") from error


def rows_of_map(array: np.memmap[Any, Any]) -> Rows | None:
    """The rows of the file that an array maps, if they are just those of the array; None if that is not sure."""
    # A part of a map has the map as its base, and not what the system mapped; its `offset` is not its own.
    base: object = array.base
    if array.mode != "r" or not isinstance(base, mmap.mmap) or not array.flags.c_contiguous:
        return None
    if array.nbytes < _LEAST * len(array):
        return None
    try:
        path = os.fspath(array.filename or "")  # none, of a map of an open file without a name
        file = opened(path)
    except OSError:
        return None  # moved away; the map is still there
    try:
        return FileRows(path, file, array.offset, array.shape, array.dtype)
    except NpyError:
        os.close(file)
        return None  # replaced


def _opened(path: str, member: str | None) -> Rows:
    """The rows of a file or of a member of it, whose descriptor is then theirs."""
    file = opened(path)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise NpyError("not a regular file")
        if member is not None or os.pread(file, 4, 0) == b"PK\x03\x04":
            start, size = _member(file, member)
        else:
            start, size = 0, status.st_size
        header = header_of(os.pread(file, min(size, MOST_BYTES + 12), start))
        _check_rows(header)
        if header.nbytes > size - header.start:
            raise NpyError(f"cut off: {size - header.start} of the {header.nbytes} bytes of its array are there")
        title = path if member is None else f"{path}/{member}"
        fortran = header.fortran and len(header.shape) > 1
        if fortran or header.nbytes < _LEAST * header.shape[0]:
            order: Literal["F", "C"] = "F" if fortran else "C"
            array = np.memmap(path, header.dtype, "r", start + header.start, header.shape, order)
            os.close(file)
            return MemoryRows(array, title)
        return FileRows(title, file, start + header.start, header.shape, header.dtype)
    except BaseException:
        os.close(file)
        raise


def _check_rows(header: Header) -> None:
    if not header.shape or 0 in header.shape:
        raise NpyError(f"an array of the shape {header.shape}, which has no rows")


def _member(file: int, name: str | None) -> tuple[int, int]:
    """Where a member of a ZIP begins in the file, and its size; members that are compressed are nowhere."""
    with os.fdopen(os.dup(file), "rb") as stream, zipfile.ZipFile(stream) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist() if not info.is_dir()}
    if name is None and len(members) == 1:
        name = next(iter(members))
    if name is None or name.removesuffix(".npy") not in members:
        known = ", ".join(members)[:200]
        asked = "it has several arrays" if name is None else f"it has no array {name!r}"
        raise NpyError(f"{asked}; write the path with one of its own, FILE.npz/NAME: {known}")
    info = members[name.removesuffix(".npy")]
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise NpyError(
            f"{name!r} is compressed, so its rows cannot be read one by one; save it with np.savez or np.save, or take "
            f"it into memory: np.load(PATH)[{name!r}], {info.file_size} bytes in every process"
        )
    local = os.pread(file, _LOCAL, info.header_offset)
    if len(local) < _LOCAL or local[:4] != b"PK\x03\x04":
        raise NpyError("a damaged ZIP file")
    lengths: tuple[int, int] = struct.unpack("<HH", local[26:30])
    return info.header_offset + _LOCAL + sum(lengths), info.file_size
