"""Which part of an image becomes a sample: a pure function of the image's size and of (seed, epoch, sample)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Literal

Crop = Literal["stretch", "center", "random-resized"]
Box = tuple[int, int, int, int]  # (top, left, height, width) in pixels

_LEAST_AREA = 0.08  # of the image; the whole is the most
_RATIOS = (3 / 4, 4 / 3)  # width / height, drawn so that its logarithm is uniform
_TRIES = 10


def crop_box(mode: Crop, height: int, width: int, target: tuple[int, int], seed: int, epoch: int, sample: int) -> Box:
    """The part of an image, (top, left, height, width), that is resized to the target.

    * `"stretch"`: all of it.
    * `"center"`: the largest part in its middle that has the target's aspect ratio.
    * `"random-resized"`: a part of 8% to 100% of the area and an aspect ratio of 3/4 to 4/3, anywhere; after ten parts
      that do not fit, the largest one in the middle with such a ratio. As in C. Szegedy et al., "Going Deeper with
      Convolutions" (CVPR 2015), section 6, and torchvision's RandomResizedCrop. It depends on (seed, epoch, sample)
      and on nothing else, so it is the same on any rank, in any thread, in any order.

    Args:
        mode: how the part is chosen.
        height: of the upright image, in pixels.
        width: likewise.
        target: (height, width) of the sample.
        seed: any int.
        epoch: 0 or more.
        sample: the sample's number in the index.
    """
    if mode == "stretch":
        return 0, 0, height, width
    if mode == "center":
        return _middle(height, width, target[1] / target[0])
    return _random_part(height, width, seed, epoch, sample)


def _middle(height: int, width: int, ratio: float) -> Box:
    """The largest part of a width / height ratio, in the middle."""
    rows = min(height, max(1, round(width / ratio)))
    columns = min(width, max(1, round(height * ratio)))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _random_part(height: int, width: int, seed: int, epoch: int, sample: int) -> Box:
    lowest, highest = math.log(_RATIOS[0]), math.log(_RATIOS[1])
    for chance in _draws(seed, epoch, sample):
        area = height * width * (_LEAST_AREA + (1 - _LEAST_AREA) * chance[0])
        ratio = math.exp(lowest + (highest - lowest) * chance[1])
        part = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < part[0] <= height and 0 < part[1] <= width:
            return int((height - part[0] + 1) * chance[2]), int((width - part[1] + 1) * chance[3]), *part
    return _middle(height, width, min(max(width / height, _RATIOS[0]), _RATIOS[1]))


def _draws(seed: int, epoch: int, sample: int) -> Iterator[tuple[float, ...]]:
    """For each try, four numbers of [0, 1): BLAKE2b of the integers, written out with separators."""
    for number in range(_TRIES):
        text = f"{seed:x},{epoch:x},{sample:x},{number:x}".encode()
        digest = hashlib.blake2b(text, digest_size=24, person=b"dist_loader.crop").digest()
        # 48 bits each: a double holds them exactly, and times a size below 2**31 it does not round up to that size.
        yield tuple(int.from_bytes(digest[at : at + 6], "little") / 2**48 for at in (0, 6, 12, 18))
