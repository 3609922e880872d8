"""Arrays in `.npy` files, opened by memory map: what is read of them is shared by all processes of a host."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError


def mapped(path: str | os.PathLike[str], what: str) -> npt.NDArray[Any]:
    """The array in a file, read-only; nothing of it is read before it is used.

    Args:
        path: of the file.
        what: what it is for, for errors.

    Raises:
        ConfigError: it is no `.npy` file of numbers, or is shorter than it says.
    """
    path = Path(path)
    if not path.is_file():  # a pipe would hold the opening up
        raise ConfigError(f"{what}: no file {str(path)!r}")
    if path.suffix == ".npz":
        raise ConfigError(
            f"{what}: {str(path)!r} is an .npz file, which cannot be mapped into memory; save its arrays one by one "
            "with numpy.save"
        )
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what}: cannot open {str(path)!r} as a .npy file of numbers: {error}") from None
    return np.asarray(found)  # without the overhead of numpy.memmap


def array_of(source: Any, what: str) -> npt.NDArray[Any]:
    """An array as it was given, or that of the file whose path was given.

    Raises:
        ConfigError: as `mapped`, or it is not of numbers.
    """
    if isinstance(source, str | os.PathLike):
        return mapped(source, what)
    try:
        found = np.asarray(source)
    except ValueError as error:
        raise ConfigError(f"{what} must be an array: {error}") from None
    if found.dtype.kind not in "biuf":
        raise ConfigError(f"{what} must be numbers, not {found.dtype}")
    return found
