"""Images of every kind that Pillow knows, decoded and resized by it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageOps

from dist_loader.readers.crop import Box
from dist_loader.readers.resize import FILTERS, Pixels, Resize
from dist_loader.readers.source import Content

# To decode EPS, Pillow runs Ghostscript on it: a file that is data would become a program.
_NEVER = {"EPS"}


def prepare_pillow() -> None:
    """Load Pillow's plugins, and let it not warn of large images; to be called before threads read.

    Both once and in one thread: Pillow looks for its plugins in a way that threads disturb (an image is then
    "unknown"), and to silence a warning around each image is not possible in threads.
    """
    Image.init()
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # a large image is not an error


def known_formats() -> list[str]:
    """Those that Pillow may open."""
    return [kind for kind in Image.ID if kind not in _NEVER]


def read_with_pillow(data: Content, box_of: Callable[[int, int], Box], resize: Resize, out: Pixels) -> None:
    """Decode an image file into given memory.

    Args:
        data: the file's content.
        box_of: from the upright image's height and width to the part of it that is wanted.
        resize: how that part is brought to the sample's size.
        out: where to, shape (height, width, channels), with 3 channels for colors and 1 for gray.

    Raises:
        Exception: of any kind; Pillow's decoders raise whatever a broken file leads them to.
    """
    mode = "RGB" if out.shape[2] == 3 else "L"
    with Image.open(io.BytesIO(data), formats=known_formats()) as image:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # otherwise it would copy what is upright already
        upright = _eight_bit(image)
        upright = upright if upright.mode == mode else upright.convert(mode)
        top, left, height, width = box_of(upright.height, upright.width)
        if (width, height) != upright.size:
            upright = upright.crop((left, top, left + width, top + height))
        resized = upright.resize((out.shape[1], out.shape[0]), FILTERS[resize])
        out[...] = np.asarray(resized).reshape(out.shape)


def _eight_bit(image: Image.Image) -> Image.Image:
    """`image` in a mode that Pillow's own conversion brings to 8 bits as it should."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _narrowed(image)
    if image.mode == "P":  # through the palette's colors, whatever transparency it has
        if "transparency" in image.info:
            return image.convert("RGBA")
        colors = image.convert("RGB")
        if colors.getbbox() is None and len(set(image.getextrema())) > 1:
            raise ValueError("pixels of several colors, all of them black or not in its palette")
        return colors
    return image


def _narrowed(image: Image.Image) -> Image.Image:
    """Gray of 16 or 32 bits. Of integers the high byte of 16 counts, which Pillow would clip to white."""
    values = np.asarray(image)
    white = 255 if image.mode == "F" else 65535
    if 0 < values.max() <= white / 255:
        raise ValueError(f"pixels of up to {values.max():g}, where white is {white}: all black; scale them to that")
    return image.convert("L") if white == 255 else Image.fromarray((values.clip(0, white) >> 8).astype(np.uint8))
