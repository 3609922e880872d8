"""Images on disk, decoded, cropped and resized: the reader of an `ImageSequence`."""

from __future__ import annotations

import json
import os
import struct
import time
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from hashlib import blake2b
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import PIL
import simplejpeg
from PIL import ImageFile, UnidentifiedImageError, features

from dist_loader.cache import STATE_BYTES
from dist_loader.errors import ConfigError, SampleError
from dist_loader.readers.crop import Box, Crop, crop_box
from dist_loader.readers.jpeg import read_jpeg
from dist_loader.readers.pillow import prepare_pillow, read_with_pillow
from dist_loader.readers.reason import reason_of
from dist_loader.readers.resize import Resize
from dist_loader.readers.scratch import Scratch
from dist_loader.readers.source import Content, Source
from dist_loader.remote.address import redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dist_loader.readers import Paths

Color = Literal["rgb", "grayscale"]

_REMOTE = b"at a remote address".ljust(STATE_BYTES, b".")
_CHANNELS: dict[Color, int] = {"rgb": 3, "grayscale": 1}


@dataclass(frozen=True)
class ImageReader:
    """Reads the images of an index, brought to one size, as uint8.

    A file's content says what it is, not its name: JPEG files go to libjpeg-turbo, all others to Pillow. When an image
    shrinks, bilinear and area resizing take all pixels into account (antialiasing). The orientation that a camera
    wrote into a file is applied. Transparency is dropped, 16-bit channels keep their high byte, and of an animation
    the first frame is taken. docs/images.md tells more.

    Args:
        index: the images' paths.
        size: (height, width) in pixels.
        color: `"rgb"` for three channels, `"grayscale"` for one.
        resize: `"nearest"`, `"bilinear"` or `"area"`.
        crop: `"stretch"`, `"center"` or `"random-resized"`; see `crop_box`.
        seed: of the random crops, any int.
        source: how the files are read; as files of this machine, unless it is told otherwise.

    Raises:
        ConfigError: a size that is not two whole numbers above 0, an unknown color, resize or crop.
    """

    index: Paths
    size: tuple[int, int]
    color: Color = "rgb"
    resize: Resize = "bilinear"
    crop: Crop = "stretch"
    seed: int = 0
    source: Source = field(default_factory=Source)
    _scratch: Scratch = field(default_factory=Scratch, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", checked_size(self.size))
        known_values = (("color", self.color, Color), ("resize", self.resize, Resize), ("crop", self.crop, Crop))
        for name, value, known in known_values:
            if value not in get_args(known):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        prepare_pillow()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return (*self.size, _CHANNELS[self.color])

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """uint8: scaling is a layer's work, on the device."""
        return np.dtype(np.uint8)

    @property
    def samples(self) -> int:
        """How many images the index holds."""
        return len(self.index)

    @property
    def recipe(self) -> str:
        """All that decides the pixels of the samples, apart from the state of the files; for a cache.

        Raises:
            ConfigError: random crops, which differ from epoch to epoch.
        """
        if self.crop == "random-resized":
            raise ConfigError(
                'crop="random-resized" gives other pixels in every epoch, which a cache cannot keep: use '
                'crop="stretch" or "center" with it, or no cache'
            )
        how = {"size": self.size, "color": self.color, "resize": self.resize, "crop": self.crop}
        what = {"root": redacted(self.index.root), "index": self.index.fingerprint}
        part = ImageFile.LOAD_TRUNCATED_IMAGES  # a user's choice for the whole process: gray where a file ends early
        return json.dumps({"reader": "image", **what, **how, "truncated": part, "decoders": _decoders()})

    @cached_property
    def _remote(self) -> bool:
        return len(self.index) > 0 and scheme_of(self.index.path(0)) is not None

    def state(self, number: int) -> bytes | None:
        """24 bytes that change when an image's file does: its length and times of change; None: no such file.

        A file at a remote address is taken to stay what it is.
        """
        path = self.index.path(number)
        if self._remote:
            return _REMOTE
        try:
            stat = os.stat(path)  # noqa: PTH116 (a Path costs more than the call)
        except (OSError, ValueError):
            return None
        # ctime, too: a copy can bring its mtime along.
        return struct.pack("<qqq", stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def name(self, number: int) -> str:
        """The path of an image; if it is not printable (not UTF-8, say), quoted and escaped."""
        path = redacted(self.index.path(number))
        return path if path.isprintable() else repr(path)

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: npt.NDArray[Any]) -> float:
        """Decode images into `out`, uint8 of shape (n, height, width, channels); seconds spent fetching the files.

        Raises:
            SampleError: a file that is missing, could not be fetched or cannot be decoded.
        """
        fetching = 0.0
        for number, place in zip(numbers.tolist(), out, strict=True):
            fetching += self.read_one(number, partial(self._box, epoch, number), place)
        return fetching

    def read_one(self, number: int, box_of: Callable[[int, int], Box], place: npt.NDArray[np.uint8]) -> float:
        """Decode one image; seconds spent fetching its file.

        Args:
            number: of the sample.
            box_of: from the upright image's height and width to the part of it that is wanted.
            place: where to, uint8, shape (height, width, channels).

        Raises:
            SampleError: a file that is missing, could not be fetched or cannot be decoded.
        """

        def decode(data: Content) -> None:
            if not read_jpeg(data, box_of, self.resize, place, self._scratch):
                read_with_pillow(data, box_of, self.resize, place)

        return read_file(self.source, self.index.path(number), number, decode)

    def _box(self, epoch: int, number: int, height: int, width: int) -> Box:
        return crop_box(self.crop, height, width, self.size, self.seed, epoch, number)


def read_file(source: Source, path: str, number: int, decode: Callable[[Content], None]) -> float:
    """Fetch the file of a sample and decode it; seconds spent fetching.

    Raises:
        SampleError: it is missing, could not be fetched or cannot be decoded.
    """
    try:
        started = time.perf_counter()
        data = source.read(path)
        fetching = time.perf_counter() - started
        with source.decoding:
            decode(data)
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise SampleError(number, redacted(path), _reason(error)) from error
    return fetching


@cache
def _decoders() -> str:
    """Which code decodes: the libraries' versions, and a digest of this folder's own files, so none is forgotten."""
    own = blake2b(digest_size=8)
    for file in sorted(resources.files(__package__).iterdir(), key=lambda file: file.name):
        if file.name.endswith(".py"):
            own.update(file.read_bytes())
    libraries = (("simplejpeg", simplejpeg), ("opencv", cv2), ("pillow", PIL))
    versions = [f"{name} {module.__version__}" for name, module in libraries]
    # Pillow's own, which some systems exchange without it.
    versions += [
        f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "jpg_2000", "libtiff", "webp", "avif")
    ]
    return ", ".join([*versions, f"own {own.hexdigest()}"])


def checked_size(size: object) -> tuple[int, int]:
    """(height, width), if it is that.

    Raises:
        ConfigError: it is not.
    """
    if (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in size)
    ):
        height, width = size
        return int(height), int(width)
    raise ConfigError(f"size must be (height, width), two whole numbers above 0, not {size!r}")


def _reason(error: Exception) -> str:
    return "not an image that Pillow knows" if isinstance(error, UnidentifiedImageError) else reason_of(error)
