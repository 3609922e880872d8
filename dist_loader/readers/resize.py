"""Decoded pixels to the size of a sample, straight into its place in the batch."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

Resize = Literal["nearest", "bilinear", "area"]
Pixels = npt.NDArray[np.uint8]

FILTERS: dict[Resize, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}

# OpenCV's threads would fight with the reading threads for the same cores (and a first call would start one per core).
# The setting holds for the whole process; a program that wants them for work of its own can set it back.
cv2.setNumThreads(0)

# (shrunk by less than this, taps of the binomial filter before OpenCV's bilinear resizing). Bilinear resizing looks at
# two source pixels, however much it shrinks. With the filter in front it differs least from Pillow's antialiased one
# (benchmarks/decoders.py), at a fourth of its time. Shrunk by more, an image goes to Pillow.
_TAPS = ((1.4, 1), (2.3, 3), (2.9, 5), (3.6, 7), (4.4, 9))
SMOOTHED_FROM = _TAPS[0][0]


def resize_into(pixels: Pixels, resize: Resize, out: Pixels, soft: bool = False) -> None:
    """Resize an image into given memory, antialiased where it shrinks (not `"nearest"`).

    Args:
        pixels: shape (height, width, channels), with 3 channels or 1; rows may lie apart.
        resize: how.
        out: where to, C-contiguous, of as many channels.
        soft: there is no detail in it that bilinear resizing would alias.
    """
    height, width = out.shape[:2]
    if resize == "nearest":
        cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_NEAREST_EXACT)
        return
    down, across = (1, 1) if soft else (_taps(pixels.shape[0] / height), _taps(pixels.shape[1] / width))
    if resize == "area" or down is None or across is None:
        image = Image.fromarray(pixels if out.shape[2] == 3 else pixels[..., 0])
        out[...] = np.asarray(image.resize((width, height), FILTERS[resize])).reshape(out.shape)
        return
    if max(down, across) > 1:
        pixels = cv2.GaussianBlur(pixels, (across, down), 0)  # type: ignore[assignment]  # 0: binomial
    cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_LINEAR)


def _taps(shrunk: float) -> int | None:
    """Length of the filter for a side that becomes so many times shorter; None: too much for it."""
    return next((taps for below, taps in _TAPS if shrunk < below), None)
