"""Image files whose pixels are numbers of classes, not colors."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from dist_loader.readers.image import checked_size, read_file
from dist_loader.readers.pillow import known_formats, prepare_pillow
from dist_loader.readers.source import Content, Source

if TYPE_CHECKING:
    from dist_loader.readers import Paths
    from dist_loader.readers.crop import Box

_SPREAD = {"L;2": 85, "L;4": 17}  # by Pillow's name of how pixels lie in a file: what it multiplies 2 and 4 bits with
_EXACT = {"1", "L", "P", "I", "I;16", "I;16L", "I;16B"}


@dataclass(frozen=True)
class MaskReader:
    """Reads masks, brought to one size by taking the nearest pixel, so that every number is one of the file's.

    Of a file with a palette (PNG, GIF) the numbers are the indices. Gray files of 1 to 32 bits give what they hold.

    Args:
        paths: the files' paths.
        size: (height, width) in pixels.
        dtype: of the numbers.
        source: how the files are read.

    Raises:
        ConfigError: a size that is not two whole numbers above 0.
    """

    paths: Paths
    size: tuple[int, int]
    dtype: np.dtype[Any]
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        prepare_pillow()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, 1)."""
        return (*self.size, 1)

    def read_one(self, number: int, box_of: Callable[[int, int], Box], place: npt.NDArray[Any]) -> float:
        """Decode a mask into `place`; seconds spent fetching its file.

        Raises:
            SampleError: a file that is missing or cannot be decoded, or that does not hold one number for each pixel.
        """
        return read_file(self.source, self.paths.path(number), number, partial(_decode, box_of=box_of, out=place))


def _decode(data: Content, box_of: Callable[[int, int], Box], out: npt.NDArray[Any]) -> None:
    with Image.open(io.BytesIO(data), formats=known_formats()) as image:
        if image.format == "JPEG":
            raise ValueError("a mask cannot be a JPEG file, which changes the numbers of its pixels: use PNG")
        if image.mode not in _EXACT:
            raise ValueError(f"a mask has one number for each pixel, and this file has {image.mode} colors")
        stored = image.tile[0].args if image.tile else None
        spread = _SPREAD.get(stored[0] if isinstance(stored, tuple) else str(stored), 1)
        upright = ImageOps.exif_transpose(image)
    numbers = np.asarray(upright).astype(np.int32) // spread
    limits = np.iinfo(out.dtype)
    if not limits.min <= int(numbers.min()) <= int(numbers.max()) <= limits.max:
        raise ValueError(f"the mask holds numbers up to {numbers.max()}, and {out.dtype} was asked for")
    top, left, height, width = box_of(*numbers.shape)
    part = numbers[top : top + height, left : left + width]
    size = out.shape[1], out.shape[0]
    out[..., 0] = np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST))
