"""Decoding and resizing one image with Pillow or OpenCV, the way a user of a loader would write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loader.corpus import SIZE

Picture = npt.NDArray[np.uint8]


def pillow(file: Any) -> Picture:
    """`file` (a path or a file object) to uint8, shape (SIZE, SIZE, 3)."""
    from PIL import Image

    with Image.open(file) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def opencv_flags(reduction: int) -> int:
    """What tells OpenCV to decode RGB at a scale of one to `reduction`."""
    import cv2

    cv2.setNumThreads(0)  # threads and processes above it share the cores
    return int(cv2.IMREAD_COLOR_RGB if reduction == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}"))


def opencv(data: bytes, flags: int, out: Any = None) -> Picture:
    """A file's content to uint8, shape (SIZE, SIZE, 3), in the memory of `out` if there is one."""
    import cv2

    image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    shrunk = cv2.resize(image, (SIZE, SIZE), dst=out)
    if not flags & cv2.IMREAD_COLOR_RGB & ~cv2.IMREAD_COLOR:  # OpenCV has no flag for a reduced RGB
        shrunk = cv2.cvtColor(shrunk, cv2.COLOR_BGR2RGB, dst=out)
    return np.asarray(shrunk)


def from_path(decoder: str, reduction: int) -> Callable[[str], Picture]:
    """A function from a path to uint8 of shape (SIZE, SIZE, 3)."""
    if decoder == "pillow":
        return pillow
    flags = opencv_flags(reduction)

    def read(path: str) -> Picture:
        with open(path, "rb") as file:  # noqa: PTH123 (cv2.imread takes about as long; this is one path for all)
            return opencv(file.read(), flags)

    return read


def whole_batch(paths: list[str], reduction: int) -> npt.NDArray[np.uint8]:
    """Images decoded by OpenCV straight into one array, uint8, shape (paths, SIZE, SIZE, 3)."""
    flags = opencv_flags(reduction)
    batch = np.empty((len(paths), SIZE, SIZE, 3), np.uint8)
    for path, out in zip(paths, batch, strict=True):
        with open(path, "rb") as file:  # noqa: PTH123
            opencv(file.read(), flags, out)
    return batch
