"""The finest detail of a JPEG file, taken out before it is decoded: antialiasing at the price of a few table entries.

A JPEG file holds the frequencies of blocks of 8 x 8 pixels, each to be multiplied by its entry in a table. Smaller
entries for high frequencies are a low-pass filter, as though each block went on beyond its edges like in a mirror
(S. A. Martucci, "Symmetric convolution and the discrete sine and cosine transforms", IEEE Transactions on Signal
Processing 42, 1994). Within a block that is the filter itself; across its edges pixels mix less than they should.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dist_loader.readers.source import Content

_SCAN, _TABLES = 0xDA, 0xDB
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


def segments(data: Content) -> list[tuple[int, int, int]]:
    """The segments up to the first scan's, or up to what is none: marker, first byte after the length, first behind."""
    found = []
    at, last = 2, len(data) - 4
    while at <= last and data[at] == 0xFF:
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2:  # it counts itself
            break
        marker, end = data[at + 1], at + 2 + length
        found.append((marker, at + 4, end))
        if marker == _SCAN:
            break
        at = end
    return found


def damped(data: Content, parts: list[tuple[int, int, int]], down: float, across: float) -> bytes | None:
    """The file of an image without the detail that is lost when it shrinks so many times in height and in width.

    Args:
        data: the file's content.
        parts: its segments.
        down: how many times its height becomes smaller.
        across: likewise its width.

    Returns:
        None if its tables do not allow that: they are too fine, or of 16 bits.
    """
    if parts[-1][0] != _SCAN:
        return None
    scales = round(_STEPS * down), round(_STEPS * across)
    pieces: list[Content] = []
    done = 0
    for marker, at, end in parts:
        if marker != _TABLES:
            continue
        for start in range(at + 1, end, 1 + _ENTRIES):
            behind = start + _ENTRIES
            entries = None if data[start - 1] > 0xF else _damped_entries(bytes(data[start:behind]), *scales)
            if entries is None:
                return None
            pieces += data[done:start], entries
            done = behind
    return b"".join([*pieces, data[done:]])


@lru_cache(1024)
def _damped_entries(entries: bytes, down: int, across: int) -> bytes | None:
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
