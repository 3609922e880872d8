"""Which samples exist: their paths and labels, in memory that does not grow by Python objects.

A Python list of 100 million paths takes some 10 GB in every process, and forked readers copy it page by page as they
touch reference counts. Here all paths lie in one buffer of bytes with offsets into it, in arrays never written again.
"""

from __future__ import annotations

import contextlib
import operator
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.index import file as index_file
from dist_loader.index import selection
from dist_loader.index.build import build, checked_classes
from dist_loader.index.cache import cached, name_for
from dist_loader.index.fingerprint import fingerprint
from dist_loader.index.lookup import Lookup
from dist_loader.index.paths import parts_of
from dist_loader.index.progress import Progress
from dist_loader.index.scan import IMAGE_SUFFIXES, LAYOUT
from dist_loader.index.stamps import unchanged
from dist_loader.index.writing import cache_key, header_of, write_blocks
from dist_loader.permutation import Permutation
from dist_loader.remote.address import local_folder, redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

_MOST_LABELS_MAPPED = 32 << 20  # bytes: to ask an array for 64 labels takes microseconds, a file 64


@dataclass(frozen=True, eq=False, repr=False)
class Index:
    """The samples of a data set: paths below one root, and the number of each one's class.

    Usually made by `Index.from_directory`. The arrays are read-only; `take` and `split` make new indexes; `save` and
    `open` keep one in a file.

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
    _lookup: Lookup | None = field(default=None, init=False)

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
        *,
        cache: str | os.PathLike[str] | None = None,
        threads: int = 16,
        progress: bool | None = None,
    ) -> Index:
        """Indexes images laid out as root/<class>/**/<image>.

        Every visible folder directly in root is a class, numbered in byte order of the names; one without images keeps
        its number, so that training and validation folders agree. Samples are ordered by class, then by path in byte
        order, whatever the file system returns. Passed over: hidden files and folders (leading dot), files with
        other suffixes, and files directly in root. Links are followed, except from inside of the directory they lead
        to. A dangling link named like an image is a sample: it fails by name when it is read, instead of going missing.

        Args:
            root: the folder of class folders, or the address of one, such as "s3://bucket/train" (docs/remote.md).
            suffixes: what an image's name ends with, case ignored.
            classes: the classes and their numbering, usually `train.classes` for a validation folder. A class without
                a folder is fine; a folder that is not among them is an error.
            cache: a folder that keeps the index for the next time, and for the other ranks of this host: one process
                makes it, all open it. It is made anew if a directory below root has changed (see docs/index.md).
            threads: how many directories are asked at the same time. On a local disk it plays no part; on a network
                file system, more are faster.
            progress: whether to say on stderr how far it is, if it takes long; by default, rank 0 does.

        Raises:
            ConfigError: root is missing, not a folder, holds no class folders or no images; a folder cannot be read;
                a folder is not one of `classes`; the cache cannot be written.
            ReadTimeout: the file system, or the process that makes the index, was silent for minutes.
        """
        if isinstance(root, str) and scheme_of(root):
            from dist_loader.remote.listing import listed

            if cache is not None:
                raise ConfigError(
                    f"cache is for folders of this machine, not {redacted(root)!r}: save the index instead"
                )
            return cls(*listed(root, suffixes, classes))
        if not os.fspath(root):
            raise ConfigError(f"no image folder given (empty path); {LAYOUT}")
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ConfigError(f"threads must be a whole number of at least 1, not {threads!r}")
        top = Path(root).absolute()
        place, wanted = os.fsencode(top), None if classes is None else checked_classes(classes)
        key = cache_key(top, suffixes, wanted)
        report = Progress(progress)
        if cache is None:
            try:
                return cls(str(top), *build(place, suffixes, wanted, threads, report.say).parts())
            finally:
                report.end()
        file = local_folder("cache", cache) / name_for(top.name, key)

        def opened(made_just_now: bool) -> Index | None:
            with contextlib.suppress(KeyError, ValueError):  # not there, or damaged
                found = index_file.read(file)
                settled = found.header["settled"] or made_just_now
                if found.header["key"] == key and settled and unchanged(place, found.arrays, threads):
                    return cls._of_file(file, found)
            return None

        def make(say: Callable[[str], None]) -> Index:
            built = build(place, suffixes, wanted, threads, say)
            whole = cls(str(top), *built.parts())
            whole._write(file, built.stamps.arrays(), key=key, settled=built.stamps.settled)
            return cls.open(file)

        return cached(file, opened, make, report)

    @classmethod
    def from_paths(
        cls,
        paths: Sequence[str | os.PathLike[str]],
        labels: Sequence[int] | Sequence[str] | NDArray[np.integer],
        classes: Sequence[str] | None = None,
        root: str | os.PathLike[str] = "",
    ) -> Index:
        """Indexes listed files, in the order of the list: local paths, or addresses such as "https://host/a.jpg".

        Nothing is looked at: a file that is missing fails by name when it is read.

        Args:
            paths: where the samples are.
            labels: of each, the number of its class or its name.
            classes: names of the classes. By default those among the labels, in byte order; for numbers "0", "1", ...
            root: folder or address that the paths are relative to. By default the longest that all of them are in.

        Raises:
            ConfigError: no paths, or not as many labels; a label that is no class; a path that is not below root;
                local paths among addresses, or addresses of several schemes.
        """
        return cls(*parts_of(paths, labels, classes, root))

    @classmethod
    def open(cls, path: str | os.PathLike[str], root: str | os.PathLike[str] | None = None) -> Index:
        """Opens a saved index by memory map: at once, whatever its size, and in memory that all processes share.

        Args:
            path: what `save` wrote.
            root: where the images are on this machine; by default, where they were when it was made.

        Raises:
            ConfigError: there is no such file, it is no index, or not as long as it must be. Other damage is not
                noticed, for that would need all of it to be read.
        """
        opened = index_file.read(Path(path))
        if root is not None:
            opened.header["root"] = root if isinstance(root, str) and scheme_of(root) else str(Path(root).absolute())
        try:
            return cls._of_file(Path(path), opened)
        except KeyError as error:
            raise ConfigError(f"cannot use index {str(path)!r}: it has no {error}; make it again") from None

    @classmethod
    def _of_file(cls, path: Path, opened: index_file.Opened) -> Index:
        header, arrays = opened.header, opened.arrays
        index = cls(header["root"], tuple(header["classes"]), arrays["labels"], arrays["paths"], arrays["offsets"])
        if header["samples"] != len(index):
            raise ConfigError(f"an index of {header['samples']} samples with {len(index)} labels: make it again")
        vars(index)["fingerprint"] = header["fingerprint"]  # where the property keeps it once it was computed
        object.__setattr__(index, "_lookup", Lookup(path, opened))
        return index

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to one file, all of it or nothing; a file of that name is replaced.

        Raises:
            ConfigError: it cannot be written.
        """
        self._write(Path(path), {})

    def _write(self, path: Path, more: Mapping[str, index_file.Blocks], **facts: Any) -> None:
        arrays: dict[str, NDArray[Any]] = {"offsets": self.offsets, "labels": self.labels, "paths": self.buffer}
        with index_file.replacing(path) as temporary:
            blocks = {name: index_file.whole(array) for name, array in arrays.items()}
            index_file.write(temporary, self._header(len(self), self.fingerprint) | facts, {**blocks, **more})

    def _write_part(self, path: Path, rows: selection.Rows, **facts: Any) -> None:
        """Writes the index of some rows without ever holding it in memory."""
        write_blocks(path, self.root, self.classes, selection.part(self, rows), {}, **facts)

    def _header(self, samples: int, fingerprint: str) -> dict[str, Any]:
        return header_of(self.root, self.classes, samples, fingerprint)

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Index({len(self)} samples, {len(self.classes)} classes, root={redacted(self.root)!r})"

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
        lookup = self._lookup
        relative = self.buffer[self.offsets[i] : self.offsets[i + 1]].tobytes() if lookup is None else lookup.path(i)
        return f"{self.root}/{os.fsdecode(relative)}"

    @property
    def labels_of(self) -> NDArray[np.int32] | Lookup:
        """For `labels_of[numbers]`: the labels of a few samples, which in an opened file of many take no memory."""
        large = self.labels.nbytes > _MOST_LABELS_MAPPED
        return self._lookup if large and self._lookup is not None else self.labels

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that change when a class name, a path, a label or the order does, and not with root.

        What the files contain plays no part.
        """
        return fingerprint(self.classes, self.labels, self.buffer, self.offsets)

    def take(self, numbers: NDArray[Any] | Sequence[int]) -> Index:
        """The index of some samples, in the given order, with the same classes.

        Args:
            numbers: (any number,) integers from 0 to len - 1; one may appear more than once.

        Raises:
            IndexError: a number is out of range.
            TypeError: numbers are not a 1-D array of integers (a boolean mask is not).
        """
        return self._part(selection.rows_of(self._checked_rows(np.asarray(numbers))))

    def _part(self, rows: selection.Rows) -> Index:
        arrays = {name: selection.gathered(array) for name, array in selection.part(self, rows).items()}
        return Index(self.root, self.classes, arrays["labels"], arrays["paths"], arrays["offsets"])

    def split(
        self,
        fraction: float,
        seed: int = 0,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: bool | None = None,
    ) -> tuple[Index, Index]:
        """Sets a part of the samples aside, as for validation: (the rest, the held-out part).

        The held-out part has `round(len * fraction)` samples, chosen by (len, seed) alone; of every class its share,
        rounded up or down. Both parts keep the order of this index, and every sample is in exactly one of them.

        Args:
            fraction: how much to hold out, above 0 and below 1.
            seed: which samples; any int.
            cache: a folder that keeps both parts for the next time, and for the other ranks of this host: one process
                makes them, all open them. Without it, both parts are in the memory of every process.
            progress: as in `from_directory`.

        Raises:
            ConfigError: the fraction is out of range, a part would be empty, or the cache cannot be written.
        """
        if not 0 < fraction < 1:
            raise ConfigError(f"fraction to hold out must be above 0 and below 1, got {fraction!r}")
        samples, count = len(self), round(len(self) * fraction)
        if not 0 < count < samples:
            raise ConfigError(
                f"holding out {fraction} of {samples} samples leaves {samples - count} and {count}: "
                f"both parts need at least one"
            )
        if cache is None:
            mask = selection.held_out(self.labels, count, seed)
            return self._part(selection.rows_where(~mask)), self._part(selection.rows_where(mask))

        key = {
            "split": self.fingerprint,
            "root": self.root,
            "held_out": count,
            "seed": Permutation(samples, seed, 0).seed,
        }
        last = local_folder("cache", cache) / name_for(Path(self.root).name, key, "held-out")
        first = last.with_name(last.name.replace("held-out", "rest"))

        def opened(_: bool) -> tuple[Index, Index] | None:
            with contextlib.suppress(KeyError, ValueError):  # not there, or damaged
                files = [index_file.read(file) for file in (first, last)]
                if all(found.header["key"] == key for found in files):
                    rest, held_out = map(Index._of_file, (first, last), files)
                    return rest, held_out
            return None

        def make(say: Callable[[str], None]) -> tuple[Index, Index]:
            def tell() -> None:
                say(f"setting {count:,} of {samples:,} samples aside")

            tell()
            mask = selection.held_out(self.labels, count, seed)
            self._write_part(first, selection.rows_where(~mask, tell), key=key)
            self._write_part(last, selection.rows_where(mask, tell), key=key)
            return Index.open(first), Index.open(last)

        return cached(last, opened, make, Progress(progress))

    def _checked_rows(self, numbers: NDArray[Any]) -> NDArray[np.int64]:
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(f"sample numbers must be a 1-D array of integers, got {numbers.ndim}-D {numbers.dtype}")
        for extreme in (int(numbers.min()), int(numbers.max())) if numbers.size else ():
            if not 0 <= extreme < len(self):
                raise IndexError(f"sample {extreme} is out of range for an index of {len(self)} samples")
        return numbers.astype(np.int64)
