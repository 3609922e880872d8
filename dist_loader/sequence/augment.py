"""A function of the user's that changes samples, or batches of them, after they were read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import numpy.typing as npt

from dist_loader.arrays import ONLY, by_name, rows, specification
from dist_loader.errors import AugmentError, SampleError
from dist_loader.sequence.data import Column, Data, Numbers, Structure

if TYPE_CHECKING:
    from dist_loader.readers import Reader

Augment = Callable[[Any, Any, np.random.Generator], Any]


def generator_of(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """A random generator that follows from three integers and from nothing else: Philox, keyed by their BLAKE2b."""
    text = f"{seed:x},{epoch:x},{sample:x}".encode()
    digest = hashlib.blake2b(text, digest_size=16, person=b"dist_loader.aug").digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def augmented(
    data: Data, of_samples: Augment | None, of_batches: Augment | None, seed: int, device_batch: int
) -> tuple[Data, Callable[[Reader], Augmenter] | None]:
    """The data with samples that a function changes, and what lets another change the device batches of a reader.

    Batches are changed behind the policy for bad samples, samples in front of it.

    Args:
        data: as it is read.
        of_samples: changes each sample; None: nothing does.
        of_batches: changes each device batch; None: nothing does.
        seed: of the randomness.
        device_batch: samples in a device batch.
    """
    if of_samples is None and of_batches is None:
        return data, None
    data, form = _with_targets_read(data)
    if of_samples is not None:
        data = replace(data, reader=Augmenter(data.reader, form, of_samples, seed, None))
    if of_batches is None:
        return data, None
    return data, lambda reader: Augmenter(reader, form, of_batches, seed, device_batch)


def _with_targets_read(data: Data) -> tuple[Data, Structure]:
    """The data with targets that were kept in memory written into the batch beside what is read, and its form."""
    single = list(specification(data.reader)) == [ONLY]
    columns: dict[str, Column] = {}

    def leaf(found: Any) -> str:
        if isinstance(found, str):
            return ONLY if single else found
        name = f"column {len(columns)}"
        columns[name] = found
        return name

    x = keras.tree.map_structure(leaf, data.form.x)
    y = None if data.form.y is None else keras.tree.map_structure(leaf, data.form.y)
    form = replace(data.form, x=x, y=y)
    return replace(data, reader=_ColumnsToo(data.reader, columns), form=form), form


class _ColumnsToo:
    """Reads what another reader reads, and columns."""

    def __init__(self, reader: Reader, columns: Mapping[str, Column]) -> None:
        self._reader = reader
        self._columns = columns
        one = {name: column[np.zeros(1, np.int64)] for name, column in columns.items()}
        inner = specification(reader)
        self._inner = list(inner)
        self.shape = {name: shape for name, (shape, _) in inner.items()} | {
            name: array.shape[1:] for name, array in one.items()
        }
        self.dtype = {name: dtype for name, (_, dtype) in inner.items()} | {
            name: array.dtype for name, array in one.items()
        }

    def name(self, number: int) -> str:
        return self._reader.name(number)

    def read(self, numbers: Numbers, epoch: int, out: dict[str, npt.NDArray[Any]]) -> float | None:
        own = out[ONLY] if self._inner == [ONLY] else {name: out[name] for name in self._inner}
        # First, for where a sample cannot be read, those before it count as read.
        for name, column in self._columns.items():
            out[name][...] = column[numbers]
        return self._reader.read(numbers, epoch, own)


@dataclass(frozen=True, eq=False)
class Augmenter:
    """A reader whose samples a function changes, one by one or a device batch at a time, in the threads that read.

    Args:
        reader: of arrays by name, the targets among them; may put other samples in the places of those it cannot read.
        form: what of them is x and y.
        function: from (x, y, rng) of a sample, or of a device batch, to (x, y).
        seed: of the randomness.
        device_batch: samples in a device batch, of which whole ones must be asked for; None: one by one.
    """

    reader: Reader
    form: Structure
    function: Augment
    seed: int
    device_batch: int | None

    @property
    def shape(self) -> Any:
        """Shapes of one sample's arrays."""
        return self.reader.shape

    @property
    def dtype(self) -> Any:
        """Their types."""
        return self.reader.dtype

    def name(self, number: int) -> str:
        """What a person would call a sample."""
        return self.reader.name(number)

    def read(self, numbers: Numbers, epoch: int, out: Any) -> float | None:
        """Read samples into `out` and change them there.

        Raises:
            SampleError: a sample could not be read.
            AugmentError: the function failed, or returned something that does not fit.
        """
        firsts = numbers[:: self.device_batch or 1].tolist()  # before others take their places
        try:
            taken = self.reader.read(numbers, epoch, out)
        except SampleError as error:
            if self.device_batch is None:  # those before it count as read
                self._change(firsts[: firsts.index(error.sample)], epoch, out)
            raise
        self._change(firsts, epoch, out)
        return taken

    def _change(self, firsts: list[int], epoch: int, out: Any) -> None:
        rows_at_once = self.device_batch or 1
        for at, first in enumerate(firsts):
            if self.device_batch is None:
                part = {name: array[at, ...] for name, array in by_name(out).items()}  # views, of single numbers, too
                what = f"augment, of sample {first} ({self.name(first)})"
            else:
                part = by_name(rows(out, slice(at * rows_at_once, (at + 1) * rows_at_once)))
                what = f"augment_batch, of the device batch that begins with sample {first} ({self.name(first)})"
            _apply(self.function, self.form, part, generator_of(self.seed, epoch, first), what)


def _apply(function: Augment, form: Structure, arrays: Mapping[str, npt.NDArray[Any]], rng: Any, what: str) -> None:
    """Let a function change arrays that are part of a batch."""
    x = keras.tree.map_structure(arrays.__getitem__, form.x)
    y = None if form.y is None else keras.tree.map_structure(arrays.__getitem__, form.y)
    try:
        changed = function(x, y, rng)
    except Exception as error:
        raise AugmentError(f"{what}: {type(error).__name__}: {error}") from error
    if not isinstance(changed, tuple) or len(changed) != 2:
        raise AugmentError(f"{what}: it must return (x, y), not {type(changed).__name__}")
    for name, old, new in (("x", x, changed[0]), ("y", y, changed[1])):
        try:
            keras.tree.assert_same_structure(old, new)
        except (TypeError, ValueError):
            raise AugmentError(f"{what}: {name} must have the structure that it was given in") from None
        for place, value in zip(keras.tree.flatten(old), keras.tree.flatten(new), strict=True):
            if value is not place:
                _put(place, value, f"{what}: {name}")


def _put(place: npt.NDArray[Any] | None, value: Any, what: str) -> None:
    if place is None:
        return
    found = np.asarray(value)
    if found.shape != place.shape and found.size == place.size == 1:
        found = found.reshape(place.shape)
    if found.shape != place.shape or not np.can_cast(found.dtype, place.dtype, "same_kind"):
        raise AugmentError(
            f"{what} must come back as {place.dtype} {place.shape}, not {found.dtype} {found.shape}; what changes its "
            "shape or type, such as scaling, is a layer's work"
        )
    np.copyto(place, found.copy() if np.may_share_memory(found, place) else found, casting="same_kind")
