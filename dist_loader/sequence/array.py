"""Arrays, in memory or in files, whose rows are the samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

import keras
import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.readers.array import ArrayReader, rows_of
from dist_loader.readers.npy import kept_dtype
from dist_loader.readers.rows import MemoryRows, RowError, Rows
from dist_loader.sequence.batch_sequence import BatchSequence
from dist_loader.sequence.columns import Labels, digest_of
from dist_loader.sequence.data import Data, Samples, Structure
from dist_loader.sequence.targets import Targets, targets_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from dist_loader.sequence.options import Options

_HASHED = 64 << 20  # bytes of an array


class ArraySequence(BatchSequence):
    """The rows of arrays, batch by batch, in plan order, for one rank (docs/arrays.md).

    `sequence[step]` is `(x, y)`, `(x, y, weights)` or `(x,)` (see `BatchSequence`), with x and y of the structure that
    they were given in.

    An array is a NumPy array or a list of numbers, in memory; the path of a `.npy` file, or of a `.npz` file that is
    not compressed ("a.npz", or "a.npz/name" if it has several arrays), of which nothing but the rows of a batch is
    read; a memory map; or anything else with a shape, a dtype and rows, such as a data set of h5py. Floats wider than
    `keras.backend.floatx()` become that, as in Keras's own `fit`; all other types stay as they are.

    Args:
        x: the inputs: an array, or a dictionary or tuple of arrays, each of shape (samples, ...).
        y: the targets, in the same way; None: there are none.
        device_batch: samples that one device computes at once, or "auto".
        host_batch: samples held in memory by this process: a number of samples, or a size such as "4GiB".
        weight: an array with the weights of a sample's parts, such as its tokens, shape (samples, parts, ...);
            `sample_weight` is for those of whole samples.
        labels: "integer" leaves y as it is; "one-hot" makes vectors, float32, of integers from 0 on.
        classes: how many labels there are; by default, what the largest one in y says.
        **options: strategy, world, seed, shuffle, remainder, global_batch, sample_weight, class_weight, threads,
            timeout, on_bad, bad_budget, bad_file, host_passes, class_shares, epoch_samples, augment, augment_batch:
            see `BatchSequence`.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        *,
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        weight: Any = None,
        labels: Labels = "integer",
        classes: int | None = None,
        **options: Unpack[Options],
    ) -> None:
        found: dict[str, Rows] = {}
        x_form = _opened(x, "x", found)
        y_form = None if y is None else _opened(y, "y", found)
        if weight is not None and len(found.setdefault("weight", rows_of(weight, "weight")).shape) < 2:
            raise ConfigError("weight is for the parts of samples, (samples, parts, ...); give sample_weight")
        count = _one_length(found)
        labelled, targets = _targets(found, labels, classes)
        if targets:
            y_form = keras.tree.map_structure(lambda _: targets.column, y_form)
        floats = keras.backend.floatx()
        dtypes = {name: kept_dtype(rows.dtype, floats) for name, rows in found.items()}
        if weight is not None:
            dtypes["weight"] = np.dtype(np.float32)
        reader = ArrayReader({name: rows for name, rows in found.items() if name != labelled}, dtypes)
        made = [f"{name} {rows.shape[1:]} {dtypes[name]}" for name, rows in found.items()]
        data = Data(
            Samples(
                count,
                lambda: digest_of(tuple(_some_rows(rows) for rows in found.values())) + f" {count}",
                targets.labels if targets else None,
                targets.classes if targets else (),
            ),
            reader,
            Structure(x_form, y_form, None if weight is None else "weight"),
            recipe=", ".join([*made, *(["one-hot"] if labels == "one-hot" else [])]),
        )
        super().__init__(data, device_batch, host_batch, **options)


def _opened(structure: Any, name: str, found: dict[str, Rows]) -> Any:
    """The structure with names in the places of its arrays, which are added to `found` by them."""
    if isinstance(structure, dict | tuple):
        if not structure:
            raise ConfigError(f"{name} is empty")
        if isinstance(structure, dict):
            return {key: _opened(part, f"{name}[{key!r}]", found) for key, part in structure.items()}
        return tuple(_opened(part, f"{name}[{at}]", found) for at, part in enumerate(structure))
    found[name] = rows_of(structure, name)
    return name


def _one_length(found: dict[str, Rows]) -> int:
    (first, rows), *others = found.items()
    for name, other in others:
        if other.shape[0] != rows.shape[0]:
            raise ConfigError(
                f"{first} has {rows.shape[0]} rows and {name} has {other.shape[0]}: a sample is one of each"
            )
    return rows.shape[0]


def _targets(found: dict[str, Rows], how: Labels, classes: int | None) -> tuple[str, Targets | None]:
    """The name of the only targets, if they are labels, and what becomes of them: they are kept in memory."""
    names = [name for name in found if name.startswith("y")]
    rows = found[names[0]] if len(names) == 1 else None
    if rows is not None and len(rows.shape) == 1 and rows.dtype.kind in "iu":
        return names[0], targets_of(_all_rows(rows), how, classes)
    if how != "integer" or classes is not None:
        raise ConfigError("one-hot labels and classes are for y of one integer for each sample, from 0 on")
    return "", None


def _all_rows(rows: Rows) -> npt.NDArray[Any]:
    if isinstance(rows, MemoryRows) and rows.dtype.isnative:
        return rows.array
    found: npt.NDArray[Any] = np.empty(rows.shape, rows.dtype.newbyteorder("="))
    try:
        rows.read(np.arange(len(found), dtype=np.int64), found)
    except RowError as error:
        raise ConfigError(f"cannot read {rows.name(error.at)}: {error.reason}") from error
    return found


def _some_rows(rows: Rows) -> npt.NDArray[Any]:
    """Up to 1,000 rows from all over an array, 64 MiB at most; one in any case."""
    each = max(1, int(np.prod(rows.shape[1:])) * rows.dtype.itemsize)
    numbers = np.linspace(0, rows.shape[0] - 1, min(rows.shape[0], 1000, max(1, _HASHED // each))).astype(np.int64)
    found: npt.NDArray[Any] = np.zeros((len(numbers), *rows.shape[1:]), rows.dtype.newbyteorder("="))
    at = 0
    while at < len(numbers):
        try:
            rows.read(numbers[at:], found[at:])
            break
        except RowError as error:
            at += error.at + 1  # what cannot be read counts as zeros
    return found
