"""One checkpoint as one file: arrays and what is said of them, with a checksum for each.

It is a ZIP file of `.npy` members, as `numpy.savez` writes it, and of a member `state.json`. A member's CRC-32 is
checked when it is read. Nothing in it is code, and no array holds Python objects.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STATE = "state.json"
_ARRAY = ".npy"
_TYPES = "types"  # of the arrays, where NumPy's format does not know them
_TIME = (1980, 1, 1, 0, 0, 0)  # of all members: what is written depends on nothing but the content


class Damaged(Exception):
    """A file that is no whole archive; the message says what is wrong with it."""


def write(file: IO[bytes], state: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Write an archive.

    Args:
        file: open for writing, at its start.
        state: can be written as JSON.
        arrays: of numbers, by names without blanks and dots.
    """
    types = {name: array.dtype.name for name, array in arrays.items() if array.dtype.kind == "V"}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED, allowZip64=True) as members:
        content = json.dumps({**state, _TYPES: types}, indent=1)
        members.writestr(zipfile.ZipInfo(_STATE, _TIME), content)
        for name, array in arrays.items():
            plain = array.view(f"u{array.dtype.itemsize}") if name in types else array
            with members.open(zipfile.ZipInfo(name + _ARRAY, _TIME), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, plain, allow_pickle=False)


def read(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]]:
    """An archive's state and all its arrays.

    Raises:
        Damaged: it cannot be read, or a checksum is wrong.
    """
    with _guarded():
        return _all(file)


def _all(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, Array]]:
    state, types = _state(file)
    arrays = {}
    with zipfile.ZipFile(file) as members:
        for name in members.namelist():
            if name == _STATE:
                continue
            with members.open(name) as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):  # read to the end, for only there the checksum is compared
                    raise ValueError(f"{name} is longer than its array")
            key = name.removesuffix(_ARRAY)
            arrays[key] = array.view(getattr(ml_dtypes, types[key])) if key in types else array
    return state, arrays


def _state(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, str]]:
    with zipfile.ZipFile(file) as members:
        state = json.loads(members.read(_STATE))
    return state, state.pop(_TYPES)


@contextmanager
def _guarded() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Damaged(f"it cannot be read: {error.strerror or error}") from None
    except (  # what a wrong byte does to ZIP, to NumPy's header and to JSON
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
        SyntaxError,
        RuntimeError,
        MemoryError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Damaged(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from None
