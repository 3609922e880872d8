"""What a JPEG file says before its first scan, looked at once for all files that say the same, but for their size.

The files of many data sets were written by one program, so they share their headers. To look at one takes 20 us.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from dist_loader.readers.source import Content

Segment: TypeAlias = tuple[int, int, int]  # marker, first byte after the length, first byte behind
Piece: TypeAlias = tuple[int, bytes]  # where it is in a file's content, and what it is
Size: TypeAlias = tuple[int, int, int]  # height, width and number of components, as stored

SCAN = 0xDA
_TABLES = 0xDB
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the segment that tells size and components
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_EXIF, _COMMENT = 0xE1, 0xFE
_BASELINE, _SCAN = b"\xff\xc0", bytes((0xFF, SCAN))
_SIZE = struct.Struct(">xHHB")  # after the bits of a sample: height, width, how many components
_BEFORE_SIZE, _BEHIND_SIZE = 5, 9  # where height and width are, from a frame's marker on
_WITHIN = 4096  # bytes, in which most headers end


@dataclass(frozen=True, eq=False, slots=True)
class Header:
    """A file's segments up to the first scan's, or up to what is none.

    Attributes:
        frame: the one that tells size and components; None if there is none, or more than one, or not all of it.
        scan: where the first scan's segment goes on after its length; None if there is none.
        one_scan: whether all pixels are in it.
        tables: of quantisation; none without a scan.
        exif: whether a camera may have written how the picture lies (Exif or XMP).
    """

    frame: Segment | None
    scan: int | None
    one_scan: bool
    tables: tuple[Piece, ...]
    exif: bool


def header_of(data: Content) -> tuple[Header, Size | None]:
    """The header of a file that begins as JPEG files do, and its size, which is None without a frame.

    Files whose headers differ in nothing but the size share one.
    """
    beginning = bytes(data[:_WITHIN])
    frame = beginning.find(_BASELINE)
    scan = beginning.find(_SCAN, frame)
    if 0 <= frame < scan:
        header = _shared(beginning[: frame + _BEFORE_SIZE], beginning[frame + _BEHIND_SIZE : scan + 5])
        if header is not None:
            return header, _SIZE.unpack_from(beginning, frame + 4)
    header = _header(data, segments(data))
    return header, None if header.frame is None else _SIZE.unpack_from(data, header.frame[1])


@lru_cache(1024)
def _shared(before: bytes, behind: bytes) -> Header | None:
    """That of all files which begin so, with any height and width between the two.

    None if frame and scan are not where these end, but within other segments.
    """
    beginning = before + bytes(_BEHIND_SIZE - _BEFORE_SIZE) + behind
    header = _header(beginning, segments(beginning))
    found = header.frame is not None and header.frame[1] == len(before) - 1 and header.scan == len(beginning) - 1
    return header if found else None


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
    scan = parts[-1][1] if parts and parts[-1][0] == SCAN else None
    return Header(
        frame=frame,
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
