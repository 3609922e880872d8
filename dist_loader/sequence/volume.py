"""Volumes, or arrays of any rank, each in a `.npy` file of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Unpack

import keras
import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.index.ids import index_of_ids
from dist_loader.readers.npy import Header, NpyError, check_numbers, header_of, kept_dtype
from dist_loader.readers.reason import reason_of
from dist_loader.readers.source import Source
from dist_loader.readers.volume import VolumeReader
from dist_loader.remote.address import redacted
from dist_loader.sequence.batch_sequence import BatchSequence
from dist_loader.sequence.columns import Labels, digest_of
from dist_loader.sequence.data import Data, Samples, Structure
from dist_loader.sequence.files import asked_source
from dist_loader.sequence.targets import Targets, targets_of

if TYPE_CHECKING:
    from dist_loader.index import Index
    from dist_loader.sequence.options import Options


class VolumeSequence(BatchSequence):
    """The arrays in `.npy` files, one file per sample, batch by batch, in plan order, for one rank (docs/volumes.md).

    `sequence[step]` is `(volumes, y)`, `(volumes, y, weights)` or `(volumes,)` (see `BatchSequence`), with volumes of
    shape (batch, *shape).

    Args:
        ids: the samples, such as `partition["train"]`: texts or whole numbers.
        y: the targets by id, such as {"id-1": 0, "id-2": 1}: numbers, or arrays of one shape; or an array or a list of
            one for each id, in their order. None: there are none.
        files: where an id's file is: a path or an address with "{id}" in it, such as "data/{id}.npy".
        device_batch: samples that one device computes at once, or "auto".
        host_batch: samples held in memory by this process: a number of samples, or a size such as "4GiB".
        shape: of the array in each file; by default, that of the first.
        dtype: what elements are converted to, if that is the same kind of number. By default, all files must have the
            type of the first; floats wider than `keras.backend.floatx()` become that.
        add_channel: whether a last axis of length 1 is added, for layers that want channels.
        labels: "integer" leaves y as it is; "one-hot" makes vectors, float32, of integers from 0 on.
        classes: how many labels there are; by default, what the largest one in y says.
        requests: how many remote files are asked for at the same time (docs/remote.md).
        local_copy: a folder of this host that keeps remote files; None for none.
        local_copy_bytes: how much it may keep.
        **options: strategy, world, seed, shuffle, remainder, global_batch, sample_weight, class_weight, threads,
            timeout, on_bad, bad_budget, bad_file, host_passes, class_shares, epoch_samples, augment, augment_batch:
            see `BatchSequence`.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do.
    """

    def __init__(
        self,
        ids: Iterable[Any],
        y: Any,
        files: str | os.PathLike[str],
        *,
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        shape: tuple[int, ...] | None = None,
        dtype: npt.DTypeLike | None = None,
        add_channel: bool = False,
        labels: Labels = "integer",
        classes: int | None = None,
        requests: int = 32,
        local_copy: str | os.PathLike[str] | None = None,
        local_copy_bytes: str = "100GiB",
        **options: Unpack[Options],
    ) -> None:
        ids = ids if hasattr(ids, "__len__") else list(ids)
        self.index = index_of_ids(ids, files)
        targets = None if y is None else _targets(ids, y, len(self.index), labels, classes)
        source, reading = asked_source(self.index, requests, local_copy, local_copy_bytes, options)
        reader = _reader(self.index, source, shape, dtype, add_channel)
        data = Data(
            Samples(
                len(self.index),
                lambda: f"{self.index.fingerprint} {digest_of(None if targets is None else targets.values)}",
                targets.labels if targets else None,
                targets.classes if targets else (),
            ),
            reader,
            Structure("volume", targets.column if targets else None),
            recipe=f"{reader.shape} {reader.dtype}" + (", one-hot" if labels == "one-hot" else ""),
            threads=reading,
        )
        super().__init__(data, device_batch, host_batch, **options)


def _targets(ids: Iterable[Any], y: Any, samples: int, labels: Labels, classes: int | None) -> Targets:
    """The targets of the ids, in their order."""
    if isinstance(y, Mapping):
        try:
            y = [y[one] for one in ids]
        except KeyError as error:
            raise ConfigError(f"y has nothing for the id {error.args[0]!r}") from None
    try:
        found = np.asarray(y)
        check_numbers(found.dtype)
    except ValueError as error:
        raise ConfigError(f"y must be numbers, or arrays of one shape, one for each id: {error}") from None
    if found.ndim == 0 or len(found) != samples:
        raise ConfigError(f"y must have one row for each of the {samples} ids, and its shape is {found.shape}")
    return targets_of(found.astype(kept_dtype(found.dtype, keras.backend.floatx()), copy=False), labels, classes)


def _reader(
    index: Index, source: Source, shape: tuple[int, ...] | None, dtype: npt.DTypeLike | None, add_channel: bool
) -> VolumeReader:
    """The reader, with what was not asked for as in the first file."""
    asked = None if dtype is None else _checked_dtype(dtype)
    first = _first(index, source) if shape is None or asked is None else None
    expected = "asked for" if shape is not None or first is None else f"that of {redacted(index.path(0))!r}"
    if shape is None:
        assert first is not None
        shape = first.shape
    shape = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in shape):
        raise ConfigError(f"shape must be whole numbers above 0, not {shape!r}")
    if asked is not None:
        return VolumeReader(index, shape, asked, None, add_channel, expected, source)
    assert first is not None
    stored = first.dtype.newbyteorder("=")
    return VolumeReader(index, shape, kept_dtype(stored, keras.backend.floatx()), stored, add_channel, expected, source)


def _checked_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        found = np.dtype(dtype).newbyteorder("=")
        check_numbers(found)
    except (TypeError, NpyError) as error:
        raise ConfigError(f"dtype must be a type of numbers, such as 'float32', not {dtype!r}") from error
    return found


def _first(index: Index, source: Source) -> Header:
    path = index.path(0)
    try:
        return header_of(source.read(path))
    except Exception as error:
        raise ConfigError(
            f"cannot find out the shape and the type of the samples from the first, {redacted(path)!r}: "
            f"{reason_of(error)}; give shape and dtype"
        ) from error
