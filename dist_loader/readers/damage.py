"""Whether pixels of a JPEG file are lost: what libjpeg's complaints are worth, and what it does not complain of."""

from __future__ import annotations

import re

import simplejpeg

from dist_loader.readers.header import SCAN, Header
from dist_loader.readers.source import Content

# What libjpeg says when pixels are lost. Its other complaints (bytes between segments, an unknown version) are about
# files that all viewers show.
_DAMAGE = (
    "premature end of data",
    "Premature end of JPEG file",
    "bad Huffman",
    "bad arithmetic",
    "instead of RST",
    "progression",
    "SOS parameters",
    "scans are missing",
)
_BYTES_BETWEEN = "extraneous bytes before marker"
_AT_THE_END = re.compile(rf"(\d+) {_BYTES_BETWEEN} 0xd9")
_LOOKS = 4

_END = b"\xff\xd9"
_COEFFICIENTS = 64


def raise_if_scans_are_missing(data: Content, header: Header) -> None:
    """Raise if a JPEG file of several scans ends before all that its picture needs has come.

    A file that was cut off between two scans and closed again is a whole file to libjpeg, with a part of the detail
    or without colors. All coefficients of the first component must have been sent, if only roughly, and the mean of
    each block of the others: more the standard does not ask for.

    Args:
        data: the file's content.
        header: what comes before its first scan.

    Raises:
        ValueError: they were not.
    """
    if header.one_scan or header.frame is None or header.scan is None:  # without a scan it is odd, as libjpeg will say
        return
    start = header.frame[1]
    number = data[start + 5]
    _check_scans(bytes(data), header.scan - 4, bytes(data[start + 6 : start + 6 + 3 * number : 3]))


def _check_scans(data: bytes, at: int, components: bytes) -> None:
    sent = {component: bytearray(_COEFFICIENTS) for component in components}
    end = data.find(_END, at)
    while at >= 0 and (end < 0 or at < end):
        number = data[at + 4] if at + 4 < len(data) else 0
        header = data[at + 5 : at + 8 + 2 * number]
        if len(header) < 2 * number + 3:
            break
        first, last = header[2 * number], min(header[2 * number + 1], _COEFFICIENTS - 1)
        for component in header[: 2 * number : 2]:
            if component in sent and first <= last:
                sent[component][first : last + 1] = b"\1" * (last + 1 - first)
        if _all_sent(sent, components):
            return
        at = data.find(b"\xff\xda", at + 2)
    raise ValueError("Corrupt JPEG data: scans are missing")


def _all_sent(sent: dict[int, bytearray], components: bytes) -> bool:
    return all(sent[components[0]]) and all(coefficients[0] for coefficients in sent.values())


def raise_if_pixels_are_lost(data: Content, error: ValueError) -> None:
    """Raise what libjpeg complains of, if it is that pixels are lost.

    It tells of its first complaint alone, which may hide worse. So what it complains of is removed, if that costs no
    pixel, and the file is decoded once more, at 1/8.

    Raises:
        ValueError: what is wrong.
    """
    file, seen = bytes(data), error
    for _ in range(_LOOKS):
        words = str(seen)
        if any(damage in words for damage in _DAMAGE):
            raise seen
        at_the_end = _AT_THE_END.search(words)
        if not at_the_end and _BYTES_BETWEEN in words and _is_bare(file):
            raise seen  # bytes between two scans, or before a restart: of what was to be pixels
        cleaner = _without_bytes_at_the_end(file, int(at_the_end[1])) if at_the_end else _bare(file)
        if cleaner is None or cleaner == file:
            return  # Pillow decides
        file = cleaner
        try:
            colors = simplejpeg.decode_jpeg_header(file)[2]
            simplejpeg.decode_jpeg(file, "CMYK" if colors in ("CMYK", "YCCK") else "GRAY", min_height=1, min_width=1)
        except ValueError as again:
            seen = again
        else:
            return


def _is_bare(data: bytes) -> bool:
    return _bare(data) == data


def _without_bytes_at_the_end(data: bytes, number: int) -> bytes | None:
    """A JPEG file without so many bytes before its end; in one with restarts it may be that pixels were to follow."""
    end = data.find(_END, max(0, data.find(b"\xff\xda")))
    return None if end < number else data[: end - number] + data[end:]


def _bare(data: bytes) -> bytes | None:
    """A JPEG file without the segments that say nothing of its pixels, and without bytes between segments."""
    parts, at = [b"\xff\xd8"], 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
        marker = data[at + 1]
        if marker == SCAN:
            return b"".join([*parts, data[at:]])
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD9:
            at += 1  # no segment begins here
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            parts.append(data[at:end])
        at = end
    return None
