"""A part of an index, copied block by block, so that the memory it takes does not grow with the number of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.index.file import Blocks
from dist_loader.permutation import Permutation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from dist_loader.index.index import Index

    Rows = Callable[[], Iterator[NDArray[np.int64]]]

# Rows handled at once where a computation needs temporary memory, so that it stays at some tens of megabytes.
BLOCK = 1 << 16


def rows_of(numbers: NDArray[np.int64]) -> Rows:
    """Given row numbers, in blocks."""
    return lambda: (numbers[at : at + BLOCK] for at in range(0, len(numbers), BLOCK))


def rows_where(mask: NDArray[np.bool_], tell: Callable[[], object] = lambda: None) -> Rows:
    """The numbers of the rows for which a mask is true, in blocks; `tell` is called for each."""

    def rows() -> Iterator[NDArray[np.int64]]:
        for at in range(0, len(mask), BLOCK):
            tell()
            yield at + np.flatnonzero(mask[at : at + BLOCK])

    return rows


def part(index: Index, rows: Rows) -> dict[str, Blocks]:
    """The arrays of an index of some rows: offsets, labels and paths, each made while it is gone through."""

    def lengths() -> Iterator[NDArray[np.int64]]:
        return (index.offsets[block + 1] - index.offsets[block] for block in rows())

    samples = total = 0
    for block in lengths():
        samples, total = samples + len(block), total + int(block.sum())

    def offsets() -> Iterator[NDArray[np.int64]]:
        end = np.zeros(1, np.int64)
        yield end
        for block in lengths():
            ends = end[-1] + np.cumsum(block)
            yield ends
            end = ends if len(ends) else end

    def paths() -> Iterator[NDArray[np.uint8]]:
        for block, size in zip(rows(), lengths(), strict=True):
            # Where each byte comes from: its place in this block, shifted by how far its path moved.
            starts = np.cumsum(size) - size
            places = np.arange(int(size.sum()), dtype=np.int64)
            places += np.repeat(index.offsets[block] - starts, size)
            yield index.buffer[places]

    return {
        "offsets": Blocks(np.dtype(np.int64), samples + 1, offsets()),
        "labels": Blocks(np.dtype(np.int32), samples, (index.labels[block] for block in rows())),
        "paths": Blocks(np.dtype(np.uint8), total, paths()),
    }


def gathered(array: Blocks) -> NDArray[Any]:
    """An array that is made piece by piece, whole."""
    out, at = np.empty(array.length, array.dtype), 0
    for block in array.blocks:
        out[at : at + len(block)] = block
        at += len(block)
    return out


def held_out(labels: NDArray[np.int32], count: int, seed: int) -> NDArray[np.bool_]:
    """Which samples to set aside: `count` of them, and of every label its share, rounded up or down.

    They are shuffled within each label, labels one after the other; then samples are taken from this row at even
    distances, which gives every stretch of it, so every label, its share to within one sample.

    Returns:
        (samples,) bool. What it takes beside that is 40 bytes for each sample of the most frequent label; and 12 for
        each sample of all, if the labels are not in ascending order.
    """
    samples = len(labels)
    by_label = None if _ascending(labels) else np.argsort(labels, kind="stable")
    ordered = labels if by_label is None else labels[by_label]
    order = Permutation(samples, seed, epoch=0)
    mask = np.zeros(samples, dtype=bool)
    start = 0
    while start < samples:
        stop = int(np.searchsorted(ordered, ordered[start], side="right"))
        rows = np.arange(start, stop) if by_label is None else by_label[start:stop]
        rows = rows[np.argsort(order[rows])]
        marks = np.arange(start, stop + 1, dtype=np.int64) * count // samples
        mask[rows[np.diff(marks) == 1]] = True
        start = stop
    return mask


def _ascending(labels: NDArray[np.int32]) -> bool:
    blocks = (labels[at : at + BLOCK + 1] for at in range(0, len(labels), BLOCK))
    return all(bool((block[1:] >= block[:-1]).all()) for block in blocks)
