"""Which samples exist: their paths and labels, in memory that does not grow by Python objects.

A Python list of 100 million paths takes some 10 GB in every process, and forked readers copy it page by page as they
touch reference counts. Here all paths lie in one buffer of bytes with offsets into it, in arrays never written again.
"""

from __future__ import annotations

import hashlib
import operator
import os
from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.permutation import Permutation
from dist_loader.scan import IMAGE_SUFFIXES, LAYOUT, class_folders, image_files, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

__all__ = ["IMAGE_SUFFIXES", "Index"]

# Rows handled at once where a computation needs temporary memory, so that it stays at some tens of megabytes.
_ROWS = 1 << 16


@dataclass(frozen=True, eq=False, repr=False)
class Index:
    """The samples of a data set: paths below one root, and the number of each one's class.

    Usually made by `Index.from_directory`. The arrays are read-only; `take` and `split` make new indexes.

    Attributes:
        root: absolute folder that all paths are relative to; may be mounted elsewhere on another machine.
        classes: names of the classes; a label is a position in it.
        labels: (samples,) int32, read-only.
        buffer: (bytes,) uint8, read-only; the relative paths one after the other, as the file system spells them.
        offsets: (samples + 1,) int64, read-only; path i is `buffer[offsets[i]:offsets[i + 1]]`.

    Raises:
        ConfigError: the arrays do not fit each other.
    """

    root: str
    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        for name, dtype in (("labels", np.int32), ("buffer", np.uint8), ("offsets", np.int64)):
            given = getattr(self, name)
            if not isinstance(given, np.ndarray) or given.ndim != 1 or given.dtype != dtype:
                raise ConfigError(f"{name} of an index must be a 1-D {np.dtype(dtype).name} array, got {given!r:.80}")
            view = given.view()
            view.setflags(write=False)
            object.__setattr__(self, name, view)
        if len(self.offsets) != len(self.labels) + 1:
            raise ConfigError(f"an index of {len(self.labels)} labels needs one offset more, got {len(self.offsets)}")
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.buffer):
            raise ConfigError(
                f"offsets of an index must run from 0 to its {len(self.buffer)} bytes of paths, "
                f"got {self.offsets[0]} to {self.offsets[-1]}"
            )

    @classmethod
    def from_directory(
        cls,
        root: str | os.PathLike[str],
        suffixes: Collection[str] = IMAGE_SUFFIXES,
        classes: Sequence[str] | None = None,
    ) -> Index:
        """Indexes images laid out as root/<class>/**/<image>.

        Every visible folder directly in root is a class, numbered in byte order of the names; one without images keeps
        its number, so that training and validation folders agree. Samples are ordered by class, then by path in byte
        order, whatever the file system returns. Passed over: hidden files and folders (leading dot), files with
        other suffixes, and files directly in root. Links are followed, except from inside of the directory they lead
        to. A dangling link named like an image is a sample: it fails by name when it is read, instead of going missing.

        Args:
            root: the folder of class folders.
            suffixes: what an image's name ends with, case ignored.
            classes: the classes and their numbering, usually `train.classes` for a validation folder. A class without
                a folder is fine; a folder that is not among them is an error.

        Raises:
            ConfigError: root is missing, not a folder, holds no class folders or no images; a folder cannot be read;
                a folder is not one of `classes`.
        """
        if not os.fspath(root):
            raise ConfigError(f"no image folder given (empty path); {LAYOUT}")
        top = os.fsencode(Path(root).absolute())
        folders = class_folders(top, suffixes)
        names = tuple(map(os.fsdecode, folders)) if classes is None else _checked_classes(classes, top, folders)
        number = {os.fsencode(name): i for i, name in enumerate(names)}

        # Flat, growing buffers instead of lists: at no time does a Python object per path exist for the whole set.
        buffer, offsets, labels = bytearray(), array("q", [0]), array("i")
        for folder in sorted(folders, key=number.__getitem__):
            for path in image_files(top, folder, suffixes):
                buffer += path
                offsets.append(len(buffer))
                labels.append(number[folder])
        if not labels:
            raise ConfigError(
                f"no images in {shown(top)}: none of its {len(folders)} class folders holds a file "
                f"ending in {', '.join(suffixes)}"
            )
        return cls(
            root=os.fsdecode(top),
            classes=names,
            labels=np.frombuffer(labels, dtype=np.int32),
            buffer=np.frombuffer(buffer, dtype=np.uint8),
            offsets=np.frombuffer(offsets, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Index({len(self)} samples, {len(self.classes)} classes, root={self.root!r})"

    def __reduce__(self) -> tuple[type[Index], tuple[Any, ...]]:
        # Rebuilt by the constructor: an unpickled array would be writable again.
        return Index, (self.root, self.classes, self.labels, self.buffer, self.offsets)

    def path(self, i: int) -> str:
        """Absolute path of sample i, to be opened as it is.

        A name that is not UTF-8 comes as Python's own functions give it (`os.fsdecode`), and opens like any other.

        Raises:
            IndexError: i is not within 0 to len - 1. Negative numbers are refused: no sample has one.
        """
        i = operator.index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} is out of range for an index of {len(self)} samples")
        relative = self.buffer[self.offsets[i] : self.offsets[i + 1]].tobytes()
        return f"{self.root}/{os.fsdecode(relative)}"

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that change when a class name, a path, a label or the order does, and not with root.

        BLAKE2b over class names, lengths of the paths, paths, and labels. What the files contain plays no part.
        """
        digest = hashlib.blake2b(digest_size=16, person=b"dist_loader.idx1")
        digest.update(np.array([len(self.classes), len(self)], dtype="<i8").tobytes())
        for name in map(os.fsencode, self.classes):
            digest.update(np.int64(len(name)).astype("<i8").tobytes() + name)
        for start in range(0, len(self), _ROWS):
            digest.update(np.diff(self.offsets[start : start + _ROWS + 1]).astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(self.buffer).data)
        for start in range(0, len(self), _ROWS):
            digest.update(self.labels[start : start + _ROWS].astype("<i4").tobytes())
        return digest.hexdigest()

    def take(self, numbers: NDArray[Any] | Sequence[int]) -> Index:
        """The index of some samples, in the given order, with the same classes.

        Args:
            numbers: (any number,) integers from 0 to len - 1; one may appear more than once.

        Raises:
            IndexError: a number is out of range.
            TypeError: numbers are not a 1-D array of integers (a boolean mask is not).
        """
        rows = self._checked_rows(np.asarray(numbers))
        starts, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        offsets = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        buffer = np.empty(offsets[-1], dtype=np.uint8)
        for low in range(0, len(rows), _ROWS):
            high = min(low + _ROWS, len(rows))
            # Where each byte of the new buffer comes from: its place there, shifted by how far its path moved.
            shifts = np.repeat(starts[low:high] - offsets[low:high], lengths[low:high])
            places = np.arange(offsets[low], offsets[high])
            buffer[offsets[low] : offsets[high]] = self.buffer[places + shifts]
        return Index(self.root, self.classes, self.labels[rows], buffer, offsets)

    def split(self, fraction: float, seed: int = 0) -> tuple[Index, Index]:
        """Sets a part of the samples aside, as for validation: (the rest, the held-out part).

        The held-out part has `round(len * fraction)` samples, chosen by (len, seed) alone; of every class its share,
        rounded up or down. Both parts keep the order of this index, and every sample is in exactly one of them.

        Args:
            fraction: how much to hold out, above 0 and below 1.
            seed: which samples; any int.

        Raises:
            ConfigError: the fraction is out of range, or a part would be empty.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"fraction to hold out must be above 0 and below 1, got {fraction!r}")
        samples, held_out = len(self), round(len(self) * fraction)
        if not 0 < held_out < samples:
            raise ConfigError(
                f"holding out {fraction} of {samples} samples leaves {samples - held_out} and {held_out}: "
                f"both parts need at least one"
            )
        # Shuffled within each class, classes one after the other; then samples are taken from this row at even
        # distances, which gives every stretch of it, so every class, its share to within one sample.
        shuffled = np.lexsort((Permutation(samples, seed, epoch=0)[:], self.labels))
        marks = np.arange(samples + 1, dtype=np.int64) * held_out // samples
        is_held_out = np.zeros(samples, dtype=bool)
        is_held_out[shuffled] = np.diff(marks) == 1
        return self.take(np.flatnonzero(~is_held_out)), self.take(np.flatnonzero(is_held_out))

    def _checked_rows(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(f"sample numbers must be a 1-D array of integers, got {numbers.ndim}-D {numbers.dtype}")
        for extreme in (int(numbers.min()), int(numbers.max())) if numbers.size else ():
            if not 0 <= extreme < len(self):
                raise IndexError(f"sample {extreme} is out of range for an index of {len(self)} samples")
        return numbers.astype(np.int64)


def _checked_classes(classes: Sequence[str], root: bytes, folders: Sequence[bytes]) -> tuple[str, ...]:
    """The given class names, after making sure that every folder found is one of them."""
    if isinstance(classes, str) or not classes or not all(isinstance(name, str) for name in classes):
        raise ConfigError(f"classes must be a list of class names, got {classes!r:.80}")
    if len(set(classes)) != len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise ConfigError(f"class {twice!r} is named twice in classes: every class needs one number")
    known = set(map(os.fsencode, classes))
    for folder in folders:
        if folder not in known:
            raise ConfigError(
                f"folder {shown(folder)} in {shown(root)} is not one of the {len(classes)} classes "
                f"{list(classes)!r:.80}: move it away, or add it to the classes"
            )
    return tuple(classes)
