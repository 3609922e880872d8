"""Sequences as a user has them: lists, arrays, or files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.npy import array_of, mapped
from dist_loader.ragged.ragged import Ragged

VALUES, OFFSETS = "values.npy", "offsets.npy"

_INT32 = np.iinfo(np.int32)


def is_ragged(given: Any) -> bool:
    """Whether something given is sequences, and not one value (or row) for each sample."""
    if isinstance(given, str | os.PathLike):
        return not Path(given).is_file()
    if isinstance(given, np.ndarray):
        return bool(given.dtype.hasobject)
    if isinstance(given, list):
        return any(isinstance(one, Sequence | np.ndarray) for one in given[:1])
    return isinstance(given, tuple | Ragged)


def ragged_of(given: Any, what: str, kinds: str) -> Ragged:
    """Sequences from what a user gave.

    Args:
        given: the path of a folder that `save_tokens` made; (values, offsets), each an array or the path of a `.npy`
            file; a list of sequences of numbers; or an array with a sequence in each row.
        what: they are, for errors.
        kinds: the kinds of numbers that may be in them, in the letters of NumPy's `dtype.kind`.

    Raises:
        ConfigError: it is none of these, or the offsets or the numbers are not what they must be.
    """
    if isinstance(given, Ragged):
        found = given
    elif isinstance(given, str | os.PathLike):
        found = _opened(Path(given), what)
    elif isinstance(given, tuple):
        if len(given) != 2:
            raise ConfigError(f"{what} must be a list of sequences, or the two (values, offsets), not {len(given)}")
        values, offsets = (array_of(part, f"{what}, {name}") for part, name in zip(given, _PARTS, strict=True))
        found = Ragged(values, offsets, what)
    elif isinstance(given, np.ndarray) and not given.dtype.hasobject and given.ndim >= 2:
        offsets = np.arange(len(given) + 1, dtype=np.int64) * given.shape[1]
        found = Ragged(given.reshape(-1, *given.shape[2:]), offsets, what)
    elif isinstance(given, Iterable):
        found = Ragged(*_from_lists(given, what, kinds), what)
    else:
        raise ConfigError(f"{what} must be a folder, (values, offsets) or a list of sequences, not {given!r:.80}")
    if found.values.dtype.kind not in kinds:
        raise ConfigError(f"{found.name} must hold {_words(kinds)}, not {found.values.dtype}")
    return found


_PARTS = ("values", "offsets")


def _words(kinds: str) -> str:
    return "whole numbers" if "f" not in kinds else "numbers"


def _opened(folder: Path, what: str) -> Ragged:
    if not folder.is_dir():
        raise ConfigError(f"{what}: no folder {str(folder)!r} with {VALUES} and {OFFSETS}; save_tokens makes one")
    return Ragged(mapped(folder / VALUES, what), mapped(folder / OFFSETS, what), str(folder))


def _from_lists(given: Iterable[Any], what: str, kinds: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Values and offsets; whole numbers as int32, others as float32."""
    parts = [array_from(one, f"{what}[{number}]", kinds) for number, one in enumerate(given)]
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    filled = [part for part in parts if len(part)]
    shapes = {part.shape[1:] for part in filled}
    if len(shapes) > 1:
        raise ConfigError(f"{what} must be made of values of one shape, not of {' and '.join(map(str, shapes))}")
    dtype = np.float32 if any(part.dtype.kind == "f" for part in filled) else np.int32
    values = np.empty((int(offsets[-1]), *(shapes.pop() if shapes else ())), dtype)
    at = 0
    for part in filled:
        values[at : at + len(part)] = part
        at += len(part)
    return values, offsets


def array_from(one: Any, name: str, kinds: str) -> npt.NDArray[Any]:
    """One sequence as an array, shape (length, ...).

    Raises:
        ConfigError: it is no sequence of such numbers, or whole numbers do not fit in 32 bits.
    """
    try:
        found = np.asarray(one)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{name} must be a sequence of numbers: {error}") from None
    if found.ndim and not found.size:
        return found.astype(np.int32)
    if not found.ndim or found.dtype.kind not in kinds:
        raise ConfigError(f"{name} must be a sequence of {_words(kinds)}, not {one!r:.80}")
    if found.dtype.kind in "iu" and not _INT32.min <= int(found.min()) <= int(found.max()) <= _INT32.max:
        raise ConfigError(f"{name} has numbers that do not fit in 32 bits, from {found.min()} to {found.max()}")
    return found
