"""The finest detail of a JPEG file, taken out before it is decoded: antialiasing at the price of a few table entries.

A JPEG file holds the frequencies of blocks of 8 x 8 pixels, each to be multiplied by its entry in a table. Smaller
entries for high frequencies are a low-pass filter, as though each block went on beyond its edges like in a mirror
(S. A. Martucci, "Symmetric convolution and the discrete sine and cosine transforms", IEEE Transactions on Signal
Processing 42, 1994). Within a block that is the filter itself; across its edges pixels mix less than they should.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dist_loader.readers.header import Piece

_ENTRIES = 64
_STEPS = 16  # to 1: how exactly a scale is kept, so that files of one size share their tables
# Entries are whole numbers. Where one would miss its share by more than this, the table is too fine to be damped: those
# of qualities above 95 are.
_MISS = 0.4

_PLACES = [(row, column) for row in range(8) for column in range(8)]
# The entries of a file come in zigzag order: diagonal by diagonal, downwards on each second one.
_ZIGZAG = np.array(
    sorted(range(_ENTRIES), key=lambda at: (sum(_PLACES[at]), _PLACES[at][0 if sum(_PLACES[at]) % 2 else 1]))
)


def softer_tables(tables: tuple[Piece, ...], down: float, across: float) -> list[Piece] | None:
    """The tables with which a file's image has none of the detail that is lost when it shrinks so many times.

    Args:
        tables: its own.
        down: how many times its height becomes smaller.
        across: likewise its width.

    Returns:
        What to write into the file's content. None if its tables do not allow that: there are none, or they are too
        fine, or of 16 bits.
    """
    return _softer_tables(tables, round(_STEPS * down), round(_STEPS * across))


@lru_cache(1024)
def _softer_tables(tables: tuple[Piece, ...], down: int, across: int) -> list[Piece] | None:
    softer = []
    for at, table in tables:
        entries = _softer(table, down, across)
        if entries is None:
            return None
        softer.append((at, entries))
    return softer or None


def write_tables(content: memoryview, tables: Iterable[Piece]) -> None:
    """Write tables into a file's content."""
    for at, table in tables:
        content[at : at + len(table)] = table


def _softer(tables: bytes, down: int, across: int) -> bytes | None:
    """The content of a segment of tables, each a byte that says which one and of how many bits, and its entries."""
    softer = []
    for start in range(0, len(tables), 1 + _ENTRIES):
        entries = (
            None if tables[start] > 0xF else _softer_entries(tables[start + 1 : start + 1 + _ENTRIES], down, across)
        )
        if entries is None:
            return None
        softer += [tables[start : start + 1], entries]
    return b"".join(softer)


def _softer_entries(entries: bytes, down: int, across: int) -> bytes | None:
    share = np.outer(_response(down / _STEPS), _response(across / _STEPS)).reshape(-1)[_ZIGZAG]
    whole = np.frombuffer(entries, np.uint8)
    if len(whole) < _ENTRIES or not whole.all():  # no decoder takes it as it is
        return None
    smaller = np.rint(whole * share)
    if np.abs(smaller / whole - share).max() > _MISS:
        return None
    return bytes(smaller.astype(np.uint8))


def _response(shrunk: float) -> npt.NDArray[np.float64]:
    """Of the filter that makes bilinear resizing after it Pillow's antialiased one, for a block's 8 frequencies.

    That one's filter is a triangle, two pixels of the result wide; that of bilinear resizing is two of the source's.
    """
    frequencies = np.arange(8) / 16  # a period takes so many pixels, inverted
    share: npt.NDArray[np.float64] = (np.sinc(max(1.0, shrunk) * frequencies) / np.sinc(frequencies)) ** 2
    return share
