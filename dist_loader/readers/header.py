"""What a JPEG file says before its first scan, looked at once for all files that say the same.

The files of many data sets were written by one program and have few sizes, so they share their headers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from dist_loader.readers.source import Content

Segment: TypeAlias = tuple[int, int, int]  # marker, first byte after the length, first byte behind
Piece: TypeAlias = tuple[int, bytes]  # where it is in a file's content, and what it is

SCAN = 0xDA
_TABLES = 0xDB
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the segment that tells size and components
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_EXIF, _COMMENT = 0xE1, 0xFE
_SIZE = struct.Struct(">xHHB")  # after the bits of a sample: height, width, how many components
_WITHIN = 4096  # bytes, in which most headers end


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """A file's segments up to the first scan's, or up to what is none.

    Attributes:
        frame: the one that tells size and components; None if there is none, or more than one, or not all of it.
        size: height, width and number of components, as stored; None without a frame.
        scan: where the first scan's segment goes on after its length; None if there is none.
        one_scan: whether all pixels are in it.
        tables: of quantisation; none without a scan.
        exif: whether a camera may have written how the picture lies (Exif or XMP).
    """

    frame: Segment | None
    size: tuple[int, int, int] | None
    scan: int | None
    one_scan: bool
    tables: tuple[Piece, ...]
    exif: bool


def header_of(data: Content) -> Header:
    """The header of a file that begins as JPEG files do; the same object for files that have the same one."""
    beginning = bytes(data[:_WITHIN])
    scan = beginning.find(bytes((0xFF, SCAN)))
    shared = None if scan < 0 else _shared(beginning[: scan + 5])
    return _header(data, segments(data)) if shared is None else shared


@lru_cache(1024)
def _shared(beginning: bytes) -> Header | None:
    """That of all files which begin so; None if their first scan is not where that ends, but in another segment."""
    parts = segments(beginning)
    return _header(beginning, parts) if parts and parts[-1][:2] == (SCAN, len(beginning) - 1) else None


def segments(data: Content) -> list[Segment]:
    """The segments up to the first scan's, or up to what is none."""
    found = []
    at, last = 2, len(data) - 4
    while at <= last and data[at] == 0xFF:
        length = data[at + 2] << 8 | data[at + 3]
        if length < 2:  # it counts itself
            break
        marker, end = data[at + 1], at + 2 + length
        found.append((marker, at + 4, end))
        if marker == SCAN:
            break
        at = end
    return found


def _header(data: Content, parts: list[Segment]) -> Header:
    frames = [part for part in parts if part[0] in _FRAMES]
    frame = frames[0] if len(frames) == 1 and frames[0][1] + _SIZE.size <= len(data) else None
    size: tuple[int, int, int] | None = None if frame is None else _SIZE.unpack_from(data, frame[1])
    scan = parts[-1][1] if parts and parts[-1][0] == SCAN else None
    return Header(
        frame=frame,
        size=size,
        scan=scan,
        one_scan=frame is not None and scan is not None and _in_one_scan(data, frame, scan),
        tables=tuple((at, bytes(data[at:end])) for marker, at, end in parts if marker == _TABLES and scan is not None),
        exif=_has_exif(parts),
    )


def _in_one_scan(data: Content, frame: Segment, scan: int) -> bool:
    """Whether the first scan has all components, and all of their coefficients."""
    marker, start, _ = frame
    return marker not in _PROGRESSIVE and data[scan : scan + 1] == data[start + 5 : start + 6]


def _has_exif(parts: list[Segment]) -> bool:
    for marker, _, _ in parts:
        if marker == _EXIF:
            return True
        if not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            break
    return False
