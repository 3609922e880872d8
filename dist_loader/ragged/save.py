"""Sequences written to files that are then opened by memory map."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.ragged.given import OFFSETS, VALUES, array_from


def save_tokens(
    folder: str | os.PathLike[str], sequences: Iterable[npt.ArrayLike], dtype: npt.DTypeLike = np.int32
) -> Path:
    """Write sequences of numbers one after the other; what they come from may be larger than the memory.

    The folder holds `values.npy`, all numbers end to end, and `offsets.npy`, int64, where each sequence begins and
    the last one ends: two plain NumPy files. It is there as a whole or not at all.

    Args:
        folder: to be made.
        sequences: each of shape (length, ...), all of one shape but for the length; may be of length 0.
        dtype: of the numbers in the file, such as "uint16", which is half as large, or "float32".

    Returns:
        The folder.

    Raises:
        ConfigError: the folder is there already, or a sequence is not made of such numbers.
    """
    folder, kind = Path(folder), np.dtype(dtype)
    if folder.exists():
        raise ConfigError(f"{str(folder)!r} is there already; give another folder, or remove it first")
    if kind.kind not in "iuf":
        raise ConfigError(f"dtype must be a type of numbers, not {kind}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with (part / VALUES).open("wb") as values, (part / OFFSETS).open("wb") as offsets:
            _write(sequences, kind, values, offsets)
        part.chmod(0o755)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return folder


def _write(sequences: Iterable[Any], kind: np.dtype[Any], values: BinaryIO, offsets: BinaryIO) -> None:
    """Both files; their headers, which say how much follows, are written again at the end, in the same length."""
    whole = kind.kind in "iu"
    shape: tuple[int, ...] = ()
    begin = np.dtype(np.int64)
    values.write(_header((0,), kind))
    offsets.write(_header((0,), begin))
    offsets.write(np.zeros(1, begin).tobytes())
    total = count = 0
    for sequence in sequences:
        name = f"sequence {count}"
        found = array_from(sequence, name, "iu" if whole else "iuf")
        if len(found):
            if not total:
                shape = found.shape[1:]
                values.seek(0)
                values.write(_header((0, *shape), kind))
            if found.shape[1:] != shape:
                raise ConfigError(f"{name} has values of shape {found.shape[1:]}, those before {shape}")
            if whole and not np.iinfo(kind).min <= int(found.min()) <= int(found.max()) <= np.iinfo(kind).max:
                raise ConfigError(f"{name} has numbers from {found.min()} to {found.max()}, which {kind} cannot hold")
            values.write(found.astype(kind).tobytes())
        total, count = total + len(found), count + 1
        offsets.write(np.array([total], begin).tobytes())
    for file, header in ((values, _header((total, *shape), kind)), (offsets, _header((count + 1,), begin))):
        file.seek(0)
        file.write(header)


def _header(shape: tuple[int, ...], kind: np.dtype[Any]) -> bytes:
    """Of a `.npy` file. NumPy leaves room in it for the first axis to grow, so its length does not depend on that."""
    text = BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(text, described)
    return text.getvalue()
