"""JPEG files, decoded by libjpeg-turbo at the largest reduction that still covers the sample, outside of the GIL."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import simplejpeg
from PIL import ExifTags, Image

from dist_loader.readers.crop import Box
from dist_loader.readers.damage import raise_if_pixels_are_lost, raise_if_scans_are_missing, segments
from dist_loader.readers.resize import SMOOTHED_FROM, Pixels, Resize, resize_into

_START = b"\xff\xd8\xff"
_REDUCTIONS = (8, 4, 2)  # those with SIMD code in libjpeg-turbo; 3/8 and the like take longer than no reduction
# The decoded part covers the sample so many times. Nearest means the file's own pixels, and area whole pixels of
# which there must be enough for each of the sample's.
_COVER: dict[Resize, float] = {"nearest": float("inf"), "bilinear": 1, "area": 2}

_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # by EXIF orientation; from 5 on the sides are exchanged before


def read_jpeg(data: bytes, box_of: Callable[[int, int], Box], resize: Resize, out: Pixels) -> bool:
    """Decode a JPEG file into given memory.

    Args:
        data: the file's content.
        box_of: from the upright image's height and width to the part of it that is wanted.
        resize: how that part is brought to the sample's size.
        out: where to, shape (height, width, channels), with 3 channels for colors and 1 for gray.

    Returns:
        False if this is not a JPEG file, or one that is left to Pillow: with four colors, of an odd kind, or with
        faults that cost no pixel. Nothing was written then that counts.

    Raises:
        ValueError: the file is damaged.
    """
    if not data.startswith(_START):
        return False
    try:
        stored_height, stored_width, colors, _ = simplejpeg.decode_jpeg_header(data)
        if Image.MAX_IMAGE_PIXELS is not None and stored_height * stored_width > Image.MAX_IMAGE_PIXELS:
            return False  # Pillow decides whether it is a decompression bomb
        raise_if_scans_are_missing(data, segments(data))
        if colors in ("CMYK", "YCCK"):
            simplejpeg.decode_jpeg(data, "CMYK", min_height=1, min_width=1)  # at 1/8: is it whole? Pillow does not ask
            return False
        orientation = _orientation(data)
        lies = orientation >= 5
        height, width = (stored_width, stored_height) if lies else (stored_height, stored_width)
        top, left, box_height, box_width = box_of(height, width)
        scale = _reduction(box_height, box_width, out, resize)
        pixels = simplejpeg.decode_jpeg(
            data,
            "RGB" if out.shape[2] == 3 else "GRAY",
            # Color stored at half resolution needs no smooth interpolation where it is smoothed later.
            fastupsample=resize == "bilinear" and _covers(box_height, box_width, out, SMOOTHED_FROM),
            min_height=-(-stored_height // scale),
            min_width=-(-stored_width // scale),
        )
    except ValueError as error:
        raise_if_pixels_are_lost(data, error)
        return False
    pixels = _upright(pixels, orientation)
    # The box in whole pixels of the reduced image, of which it misses its place by half of one at most.
    rows, columns = _reduced(box_height, scale), _reduced(box_width, scale)
    top = min(round(top / scale), pixels.shape[0] - rows)
    left = min(round(left / scale), pixels.shape[1] - columns)
    resize_into(pixels[top : top + rows, left : left + columns], resize, out)
    return True


def _reduction(height: int, width: int, out: Pixels, resize: Resize) -> int:
    """The largest reduction that leaves enough pixels of a part of height x width for the sample."""
    fitting = (by for by in _REDUCTIONS if _covers(_reduced(height, by), _reduced(width, by), out, _COVER[resize]))
    return next(fitting, 1)


def _reduced(length: int, scale: int) -> int:
    """A length in whole pixels of the reduced image, at least one."""
    return max(1, (length + scale // 2) // scale)


def _covers(height: int, width: int, out: Pixels, times: float) -> bool:
    """Whether both sides are so many times as long as the sample's."""
    return bool(height >= times * out.shape[0] and width >= times * out.shape[1])


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    turned: Any = pixels
    if orientation >= 5:
        turned = cv2.transpose(turned)
    if orientation in _FLIPS:
        turned = cv2.flip(turned, _FLIPS[orientation])
    return turned.reshape(*turned.shape[:2], pixels.shape[2])  # type: ignore[no-any-return]  # gray keeps its channel


def _orientation(data: bytes) -> int:
    """The orientation that the camera wrote into a file, 1 to 8; 1 is upright, and also what makes no sense."""
    at = 2
    while data[at] == 0xFF and (0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE):  # segments before the image
        if data[at + 1] == 0xE1:  # Exif or XMP: Pillow knows where it is written in them
            with Image.open(io.BytesIO(data)) as image:
                orientation = image.getexif().get(ExifTags.Base.Orientation)
            return next((known for known in range(1, 9) if known == orientation), 1)
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 1
