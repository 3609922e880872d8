"""What a JPEG file consists of, as far as it must be known before it is decoded."""

from __future__ import annotations

import struct
from typing import TypeAlias

from dist_loader.readers.source import Content

Segment: TypeAlias = tuple[int, int, int]  # marker, first byte after the length, first byte behind

SCAN = 0xDA
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of the segment that tells size and components
_SIZE = struct.Struct(">xHHB")  # after the bits of a sample: height, width, how many components


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


def frame_of(data: Content, parts: list[Segment]) -> Segment | None:
    """The segment that tells size and components; None if there is none, or more than one, or not all of it."""
    frames = [part for part in parts if part[0] in _FRAMES]
    return frames[0] if len(frames) == 1 and frames[0][1] + _SIZE.size <= len(data) else None


def size_of(data: Content, frame: Segment) -> tuple[int, int, int]:
    """Height, width and number of components."""
    height, width, components = _SIZE.unpack_from(data, frame[1])
    return height, width, components
