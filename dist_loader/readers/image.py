"""Images on disk, decoded and resized by Pillow."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dist_loader.errors import ConfigError, SampleError

if TYPE_CHECKING:
    from dist_loader.index import Index

Color = Literal["rgb", "grayscale"]
Resize = Literal["nearest", "bilinear", "area"]

_MODES: dict[str, str] = {"rgb": "RGB", "grayscale": "L"}
_FILTERS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF orientations in which the stored width is the upright height


@dataclass(frozen=True)
class ImageReader:
    """Reads the images of an index, stretched to one size, as uint8.

    A JPEG file is decoded at the smallest of its reduced scales that is at least twice the target. When an image
    shrinks, bilinear and area resizing take all pixels into account (antialiasing). The orientation that a camera
    wrote into a file is applied. Transparency is dropped, 16-bit channels keep their high byte, and of an animation
    the first frame is taken.

    Args:
        index: the images' paths.
        size: (height, width) in pixels.
        color: `"rgb"` for three channels, `"grayscale"` for one.
        resize: `"nearest"`, `"bilinear"` or `"area"`.

    Raises:
        ConfigError: a size that is not two whole numbers above 0, an unknown color or resize.
    """

    index: Index
    size: tuple[int, int]
    color: Color = "rgb"
    resize: Resize = "bilinear"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _checked_size(self.size))
        for name, value, known in (("color", self.color, Color), ("resize", self.resize, Resize)):
            if value not in get_args(known):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        # Both once and here, in one thread: Pillow looks for its plugins in a way that threads disturb (an image is
        # then "unknown"), and to silence a warning around each image is not possible in threads.
        Image.init()
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # a large image is not an error

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (*self.size, Image.getmodebands(_MODES[self.color]))

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8: scaling is a layer's work, on the device."""
        return np.dtype(np.uint8)

    def name(self, number: int) -> str:
        """The path of an image; if it is not printable (not UTF-8, say), quoted and escaped."""
        path = self.index.path(number)
        return path if path.isprintable() else repr(path)

    def read(self, numbers: npt.NDArray[np.int64], out: npt.NDArray[Any]) -> None:
        """Decode images into `out`, uint8 of shape (n, height, width, channels).

        Raises:
            SampleError: a file that is missing or cannot be decoded.
        """
        for number, place in zip(numbers.tolist(), out, strict=True):
            path = self.index.path(number)
            try:
                place[...] = self._decode(path)
            except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
                raise SampleError(number, path, _reason(error)) from error

    def _decode(self, path: str) -> npt.NDArray[np.uint8]:
        height, width = self.size
        mode = _MODES[self.color]
        with Image.open(path) as image:
            lies = image.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
            image.draft(mode, (2 * height, 2 * width) if lies else (2 * width, 2 * height))
            upright = ImageOps.exif_transpose(image)
            resized = _eight_bit(upright).convert(mode).resize((width, height), _FILTERS[self.resize])
        return np.asarray(resized, np.uint8).reshape(self.shape)


def _eight_bit(image: Image.Image) -> Image.Image:
    """`image` with 16-bit gray brought to 8 bits, which Pillow's own conversion would clip to white instead."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode == "P":  # through the palette's colors, whatever transparency it has
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    return image


def _checked_size(size: object) -> tuple[int, int]:
    if (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in size)
    ):
        height, width = size
        return int(height), int(width)
    raise ConfigError(f"size must be (height, width), two whole numbers above 0, not {size!r}")


def _reason(error: Exception) -> str:
    """One line that says what went wrong, without the path, which the message already has."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
