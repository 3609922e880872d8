"""Rows of a table as inputs and targets."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

import keras
import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.readers.crop import Crop
from dist_loader.readers.image import ImageReader
from dist_loader.readers.mask import MaskReader
from dist_loader.remote.address import scheme_of
from dist_loader.sequence.batch_sequence import BatchSequence
from dist_loader.sequence.data import Data, Samples, Structure
from dist_loader.sequence.files import clocked_source
from dist_loader.table.classes import LabelColumn
from dist_loader.table.numbers import NumberColumns
from dist_loader.table.paths import PathColumn, sampled
from dist_loader.table.reader import TableReader
from dist_loader.table.specs import Image, Label, Mask, MaskType, Numbers, Spec

if TYPE_CHECKING:
    from dist_loader.readers.clock import DecodeClock
    from dist_loader.readers.source import Source
    from dist_loader.sequence.options import Options
    from dist_loader.table import Table
    from dist_loader.table.reader import Cells, Files


class TableSequence(BatchSequence):
    """The rows of a table, batch by batch, in plan order, for one rank (docs/tables.md).

    `sequence[step]` is `(x, y)`, `(x, y, weights)` or `(x,)` (see `BatchSequence`).

    Args:
        table: the samples.
        device_batch: samples that one device computes at once, or "auto".
        host_batch: samples held in memory by this process: a number of samples, or a size such as "4GiB".
        x: the inputs: `Image`, `Mask`, `Label` or `Numbers`; a column's name or a list of names (numbers as float32);
            or a dictionary or tuple of these.
        y: the targets, in the same way; None: there are none.
        weight: a column with the samples' weights.
        crop: "stretch", "center" or "random-resized": which part of the images is resized, the same of all images and
            masks of a row (docs/images.md).
        root: folder or address that relative paths start from; by default the folder of the table's file, and of a
            table that was made in memory, the one that was current then.
        requests: how many remote files are asked for at the same time (docs/remote.md).
        local_copy: a folder of this host that keeps remote files; None for none.
        local_copy_bytes: how much it may keep.
        decode_timeout: seconds that decoding one image may take, then its row is a bad sample.
        **options: strategy, world, seed, shuffle, remainder, global_batch, sample_weight, class_weight, threads,
            timeout, on_bad, bad_budget, bad_file, host_passes, class_shares, epoch_samples, augment, augment_batch: see
            `BatchSequence`. `class_weight` and `class_shares` need one `Label` as y.

    Raises:
        ConfigError: a value that cannot work, with the column, the row, and what to do.
    """

    def __init__(
        self,
        table: Table,
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        *,
        x: Any,
        y: Any = None,
        weight: str | None = None,
        crop: Crop = "stretch",
        root: str | os.PathLike[str] | None = None,
        requests: int = 32,
        local_copy: str | os.PathLike[str] | None = None,
        local_copy_bytes: str = "100GiB",
        decode_timeout: float = 60.0,
        **options: Unpack[Options],
    ) -> None:
        self.table = table
        names: dict[Spec, str] = {}
        inputs = _named(x, "x", names)
        targets = None if y is None else _named(y, "y", names)
        cells: dict[str, Cells] = {}
        for spec, name in names.items():
            if isinstance(spec, Numbers):
                cells[name] = NumberColumns(table, spec)
            elif isinstance(spec, Label):
                cells[name] = LabelColumn(table, spec)
        pictures = {name: spec for spec, name in names.items() if isinstance(spec, Image | Mask)}
        paths = {name: PathColumn(table, spec.column, _root(table, root)) for name, spec in pictures.items()}
        _check_crop(crop, list(pictures.values()))
        clock: DecodeClock | None = None
        threads, files = options.get("threads"), {}
        if paths:
            _check_one_kind(paths)
            first = next(iter(paths.values()))
            clock, threads = clocked_source(first, requests, local_copy, local_copy_bytes, decode_timeout, options)
            files = {name: _files(paths[name], spec, clock.source) for name, spec in pictures.items()}
        aligned = any(isinstance(spec, Mask) for spec in pictures.values())
        reader = TableReader(cells, files, paths, aligned, crop, options.get("seed", 0))
        weights = np.empty(0, np.float32)
        if weight is not None:
            if options.get("sample_weight") is not None:
                raise ConfigError(f"weight={weight!r} and sample_weight are both given: leave one out")
            options["sample_weight"] = weights = _weights(table, weight)
        label = _only_label(targets, cells)

        def identify() -> str:
            return _fingerprint(len(table), names, cells, paths, weights)

        samples = Samples(
            len(table),
            identify,
            None if label is None else label.labels,
            () if label is None else tuple(map(str, label.classes)),
        )
        recipe = f"x: {_words(x)}, y: {_words(y)}" + (f", crop {crop}" if pictures else "")
        data = Data(samples, reader, Structure(inputs, targets), recipe=recipe, clock=clock, threads=threads)
        super().__init__(data, device_batch, host_batch, **options)


def _named(structure: Any, what: str, names: dict[Spec, str]) -> Any:
    """The structure with a name for each leaf, which is noted in `names`; what is in x and in y is read once."""
    if isinstance(structure, dict):
        return {key: _named(part, what, names) for key, part in structure.items()}
    if isinstance(structure, tuple):
        return tuple(_named(part, what, names) for part in structure)
    if isinstance(structure, str | list):
        structure = Numbers(structure if isinstance(structure, str) else tuple(structure))
    if not isinstance(structure, Spec):
        raise ConfigError(
            f"{what} takes names of columns, Image, Mask, Label and Numbers, or a dictionary or tuple of these, "
            f"not {structure!r:.80}"
        )
    return names.setdefault(structure, str(len(names)))


def _files(paths: PathColumn, spec: Image | Mask, source: Source) -> Files:
    if isinstance(spec, Image):
        return ImageReader(paths, spec.size, spec.color, spec.resize, source=source)
    if spec.dtype not in get_args(MaskType):
        raise ConfigError(f"dtype of a Mask must be one of {', '.join(get_args(MaskType))}, not {spec.dtype!r}")
    return MaskReader(paths, spec.size, np.dtype(spec.dtype), source)


def _root(table: Table, root: str | os.PathLike[str] | None) -> str:
    if root is None:
        return table.root
    place = os.fspath(root)
    return place if scheme_of(place) is not None else os.path.abspath(place)  # noqa: PTH100 (".." stays in a Path)


def _check_crop(crop: Crop, pictures: list[Image | Mask]) -> None:
    if crop not in get_args(Crop):
        raise ConfigError(f"crop must be one of {', '.join(get_args(Crop))}, not {crop!r}")
    if crop == "center" and any(isinstance(spec, Mask) for spec in pictures):
        shapes = {spec.size[0] / spec.size[1] for spec in pictures}
        if len(shapes) > 1:
            raise ConfigError(
                'crop="center" takes the part that has the shape of `size`, and the sizes of image and mask have '
                "different shapes: give both the same height / width"
            )


def _check_one_kind(paths: dict[str, PathColumn]) -> None:
    kinds = {scheme_of(column.path(0)) for column in paths.values()}
    if len(kinds) > 1:
        found = ", ".join(sorted("local paths" if kind is None else f"{kind}://" for kind in kinds))
        raise ConfigError(f"the files of a table must all be of one kind, got {found}")


def _weights(table: Table, column: str) -> npt.NDArray[np.float32]:
    found = NumberColumns(table, Numbers(column))
    if found.shape:
        raise ConfigError(f"weight must be a column of numbers, one for each row, and {column!r} holds lists")
    weights = np.empty(len(table), np.float32)
    for numbers in table.blocks():
        found.read(numbers, weights[numbers[0] : numbers[-1] + 1])
    return weights


def _only_label(targets: Any, cells: dict[str, Cells]) -> LabelColumn | None:
    """The label, if it is the only target and each row has one."""
    names = [] if targets is None else keras.tree.flatten(targets)
    column = cells.get(names[0]) if len(names) == 1 else None
    return column if isinstance(column, LabelColumn) and column.labels is not None else None


def _words(structure: Any) -> str:
    """What is made of the columns, for a person; classes are part of the fingerprint."""
    if isinstance(structure, dict):
        return "{" + ", ".join(f"{key}: {_words(part)}" for key, part in structure.items()) + "}"
    if isinstance(structure, tuple):
        return "(" + ", ".join(map(_words, structure)) + ")"
    return repr(replace(structure, classes=None) if isinstance(structure, Label) else structure)


def _fingerprint(
    samples: int,
    names: dict[Spec, str],
    cells: dict[str, Cells],
    paths: dict[str, PathColumn],
    weights: npt.NDArray[np.float32],
) -> str:
    """A text that changes when the columns do, in part: of more than 100,000 rows, so many are looked at."""
    found = hashlib.blake2b(digest_size=16)
    numbers = sampled(samples)
    found.update(f"{samples}".encode())
    for name in names.values():
        if name in paths:
            found.update(paths[name].fingerprint.encode())
            continue
        column = cells[name]
        some = np.empty((len(numbers), *column.shape), column.dtype)
        column.read(numbers, some)
        found.update(f"{some.shape} {some.dtype.str}".encode() + some.tobytes())
        if isinstance(column, LabelColumn):
            found.update(repr(column.classes).encode())
    if len(weights):
        found.update(weights[numbers].tobytes())
    return found.hexdigest()
