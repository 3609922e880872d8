"""JPEG files, decoded by libjpeg-turbo at the largest reduction that still covers the sample, outside of the GIL."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from dist_loader.readers.crop import Box
from dist_loader.readers.damage import raise_if_pixels_are_lost, raise_if_scans_are_missing
from dist_loader.readers.damping import softer_tables, write_tables
from dist_loader.readers.header import Header, Piece, header_of
from dist_loader.readers.resize import SMOOTHED_FROM, Pixels, Resize, resize_into
from dist_loader.readers.scratch import Scratch
from dist_loader.readers.source import Content

_START = b"\xff\xd8\xff"
_REDUCTIONS = (8, 4, 2)  # those with SIMD code in libjpeg-turbo; 3/8 and the like take longer than no reduction
# Shrunk by no more than this, a file is softened before it is decoded. By more, the edges of its blocks would show.
_DAMPED_TO = 2.3

_FLIPS = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}  # by EXIF orientation; from 5 on the sides are exchanged before


def read_jpeg(data: Content, box_of: Callable[[int, int], Box], resize: Resize, out: Pixels, scratch: Scratch) -> bool:
    """Decode a JPEG file into given memory.

    Args:
        data: the file's content.
        box_of: from the upright image's height and width to the part of it that is wanted.
        resize: how that part is brought to the sample's size.
        out: where to, shape (height, width, channels), with 3 channels for colors and 1 for gray.
        scratch: for what is decoded.

    Returns:
        False if this is not a JPEG file, or one that is left to Pillow: with four colors, of an odd kind, or with
        faults that cost no pixel. Nothing was written then that counts.

    Raises:
        ValueError: the file is damaged.
    """
    if data[:3] != _START:
        return False
    try:
        header, size = header_of(data)
        stored_height, stored_width, components = size or _asked_size(data)
        if Image.MAX_IMAGE_PIXELS is not None and stored_height * stored_width > Image.MAX_IMAGE_PIXELS:
            return False  # Pillow decides whether it is a decompression bomb
        raise_if_scans_are_missing(data, header)
        if components == 4:
            simplejpeg.decode_jpeg(data, "CMYK", min_height=1, min_width=1)  # at 1/8: is it whole? Pillow does not ask
            return False
        orientation = _orientation(data) if header.exif else 1
        lies = orientation >= 5
        upright = (stored_width, stored_height) if lies else (stored_height, stored_width)
        box = box_of(*upright)
        scale, shrinks, soft = _approach(header, *box[2:], lies, out.shape, resize)
        # Gray becomes three colors after it was resized.
        small = out if out.shape[2] == 1 or components != 1 else np.empty((*out.shape[:2], 1), np.uint8)
        least_height, least_width = -(-stored_height // scale), -(-stored_width // scale)
        pixels = _decoded(
            data,
            header,
            soft,
            colorspace="RGB" if small.shape[2] == 3 else "GRAY",
            fastupsample=shrinks,  # color stored at half resolution needs no smooth interpolation then
            min_height=least_height,
            min_width=least_width,
            buffer=scratch.of(least_height * least_width * small.shape[2]),
        )
        if pixels.shape[:2] != (least_height, least_width):
            return False  # what looked like segments was something else
    except ValueError as error:
        raise_if_pixels_are_lost(data, error)
        return False
    part = _part(pixels, _lying(box, *upright, orientation), scale)
    resize_into(_upright(part, orientation), resize, small, soft is not None)
    if small is not out:
        cv2.cvtColor(small, cv2.COLOR_GRAY2RGB, dst=out)
    return True


def _decoded(data: Content, header: Header, soft: list[Piece] | None, **how: Any) -> Pixels:
    """The pixels of a file, with softer tables if there are any, which its content has while it is decoded."""
    if soft is None:
        return simplejpeg.decode_jpeg(data, **how)  # type: ignore[no-any-return]
    # What was read from a file of this machine may be written to, and a copy of it takes longer than all the rest.
    content = data if isinstance(data, memoryview) and not data.readonly else memoryview(bytearray(data))
    write_tables(content, soft)
    try:
        return simplejpeg.decode_jpeg(content, **how)  # type: ignore[no-any-return]
    finally:
        write_tables(content, header.tables)


def _asked_size(data: Content) -> tuple[int, int, int]:
    """Height, width and number of components, as libjpeg finds them where it is not plain to see."""
    height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    return height, width, {"Gray": 1, "CMYK": 4, "YCCK": 4}.get(colors, 3)


def _approach(
    header: Header, height: int, width: int, lies: bool, shape: tuple[int, ...], resize: Resize
) -> tuple[int, bool, list[Piece] | None]:
    """How a part of height x width of the upright image becomes a sample of a shape.

    Returns:
        The largest reduction that leaves enough pixels; whether colors stored at half resolution need no smooth
        interpolation, for the image shrinks later; and the tables with which it is decoded, if not its own.
    """
    if resize == "nearest":  # that takes the file's own pixels
        return 1, False, None
    cover = 1 if resize == "bilinear" else 2  # area takes whole pixels, of which there must be enough
    down, across = height / shape[0], width / shape[1]
    scale = 1
    for by in _REDUCTIONS:
        if _reduced(height, by) >= cover * shape[0] and _reduced(width, by) >= cover * shape[1]:
            scale = by
            break
    shrinks = resize == "bilinear" and min(down, across) >= SMOOTHED_FROM
    soft = None
    if resize == "bilinear" and scale == 1 and 1 < max(down, across) <= _DAMPED_TO:
        soft = softer_tables(header.tables, *((across, down) if lies else (down, across)))
    return scale, shrinks, soft


def _lying(box: Box, height: int, width: int, orientation: int) -> Box:
    """A box of the upright image of height x width, in the image as it is stored.

    There it is cut out, for what is reduced begins with a whole pixel, and may end with one that is hardly there.
    """
    if orientation == 1:
        return box
    top, left, rows, columns = box
    flip = _FLIPS.get(orientation)
    if flip in (0, -1):
        top = height - top - rows
    if flip in (1, -1):
        left = width - left - columns
    return (left, top, columns, rows) if orientation >= 5 else (top, left, rows, columns)


def _part(pixels: Pixels, box: Box, scale: int) -> Pixels:
    """The box in whole pixels of the reduced image, by half of one at most beside the box's middle."""
    rows, columns = _reduced(box[2], scale), _reduced(box[3], scale)
    if (rows, columns) == pixels.shape[:2]:
        return pixels
    top = _start(box[0] + box[2] / 2, rows, scale, pixels.shape[0])
    left = _start(box[1] + box[3] / 2, columns, scale, pixels.shape[1])
    return pixels[top : top + rows, left : left + columns]


def _start(middle: float, length: int, scale: int, most: int) -> int:
    """Where a part of a length must begin to have its middle where the file has it, if there are so many pixels."""
    return max(0, min(round(middle / scale - length / 2), most - length))


def _reduced(length: int, scale: int) -> int:
    """A length in whole pixels of the reduced image, at least one."""
    return max(1, (length + scale // 2) // scale)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    if orientation == 1:
        return pixels
    turned: Any = pixels
    if orientation >= 5:
        turned = cv2.transpose(turned)
    if orientation in _FLIPS:
        turned = cv2.flip(turned, _FLIPS[orientation])
    return turned.reshape(*turned.shape[:2], pixels.shape[2])  # type: ignore[no-any-return]  # gray keeps its channel


def _orientation(data: Content) -> int:
    """The orientation that the camera wrote into a file, 1 to 8; 1 is upright, and also what makes no sense."""
    with Image.open(io.BytesIO(data)) as image:  # Pillow knows where it is written
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return next((known for known in range(1, 9) if known == orientation), 1)
