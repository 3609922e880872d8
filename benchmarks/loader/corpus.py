"""The files that all ways read: photo-like images, the same on every machine, written once."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 224  # pixels, the height and width of what every way delivers
BATCH = 64
CELLS = 4  # a fingerprint is the mean color of each of 4 x 4 cells
_FALL = 0.7  # of a detail's strength when its size halves
_VERSION = 1  # of what is drawn; another one makes another folder


@dataclass(frozen=True)
class Kind:
    """A kind of image.

    Args:
        name: of the folder.
        height: about, in pixels; every image is up to 5% smaller or larger.
        width: likewise.
        suffix: "jpg" (quality 90, 4:2:0) or "png".
        gray: one channel in the file. Three are delivered, all the same.
        share: images of this kind to one of the small ones.
        grain: of the sensor's noise, the standard deviation in levels. It decides most of a file's size: 63 kB for a
            small image, 450 kB for a large one.
        reduction: the largest of 1, 2, 4, 8 by which every image can be shrunk and still cover SIZE.
    """

    name: str
    height: int
    width: int
    suffix: str = "jpg"
    gray: bool = False
    share: float = 1.0
    grain: float = 7.0
    reduction: int = 1


KINDS = {
    kind.name: kind
    for kind in (
        Kind("small", 400, 455),
        Kind("large", 1067, 1600, share=0.25, grain=5.0, reduction=4),
        Kind("png", 400, 455, "png", share=0.25),
        Kind("gray", 400, 455, gray=True, share=0.5),
    )
}


@dataclass(frozen=True)
class Corpus:
    """A folder of images, `class-0/00000.jpg` and so on, and the fingerprint of each."""

    kind: Kind
    folder: Path

    @property
    def images(self) -> Path:
        """The folder of the classes' folders."""
        return self.folder / "images"

    def paths(self) -> list[str]:
        """Every file, sorted."""
        return sorted(str(path) for path in self.images.glob("*/*"))

    def fingerprints(self) -> npt.NDArray[np.float32]:
        """Of every file, float32, shape (files, CELLS x CELLS x 3), in the order of `paths`."""
        prints: npt.NDArray[np.float32] = np.load(self.folder / "fingerprints.npy", allow_pickle=False)
        return prints


def cache_folder() -> Path:
    """Where corpora are kept from run to run."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dist_loader" / "bench"


def count(kind: Kind, images: int) -> int:
    """How many files there are of a kind when there are `images` small ones: whole batches, at least one."""
    return max(1, round(images * kind.share / BATCH)) * BATCH


def make(kind: Kind, images: int, root: Path, threads: int) -> Corpus:
    """Write `count(kind, images)` files below `root`, unless they are there already."""
    files = count(kind, images)
    folder = root / f"{kind.name}-{files}-v{_VERSION}"
    corpus = Corpus(kind, folder)
    if folder.is_dir():
        return corpus
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")

    def write(number: int) -> npt.NDArray[np.float32]:
        path = unfinished / "images" / f"class-{number * 10 // files}" / f"{number:05d}.{kind.suffix}"
        image = draw(kind, number)
        image.save(path, quality=90) if kind.suffix == "jpg" else image.save(path, compress_level=6)
        shrunk = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX)
        one: npt.NDArray[np.float32] = fingerprints(np.asarray(shrunk)[None])[0]
        return one

    try:
        for number in range(10):
            (unfinished / "images" / f"class-{number}").mkdir(parents=True)
        with ThreadPoolExecutor(threads) as pool:
            np.save(unfinished / "fingerprints.npy", np.stack(list(pool.map(write, range(files)))))
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run was faster, with the same files
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return corpus


def draw(kind: Kind, number: int) -> Image.Image:
    """A picture with the statistics of a photo.

    There is detail at every scale, the stronger the larger it is (a spectrum of about 1/f), less of it in color than
    in brightness, some edges, and a little noise of the sensor.
    """
    rng = np.random.default_rng([_VERSION, number])
    height, width = (round(side * rng.uniform(0.95, 1.05)) for side in (kind.height, kind.width))
    light = _octaves(rng, height, width, finest=2, strength=40) + rng.uniform(90, 165)
    for _ in range(6):  # things with borders
        top, left = rng.integers(0, height - 40), rng.integers(0, width - 40)
        light[top : top + rng.integers(20, height // 2), left : left + rng.integers(20, width // 2)] += rng.normal(
            0, 25
        )
    light += rng.standard_normal((height, width), np.float32) * np.float32(kind.grain)
    if kind.gray:
        return Image.fromarray(light.clip(0, 255).astype(np.uint8))
    red, blue = (_octaves(rng, height, width, finest=8, strength=22) for _ in range(2))
    color = np.stack([light + red, light - (red + blue) / 2, light + blue], axis=-1)
    return Image.fromarray(color.clip(0, 255).astype(np.uint8))


def _octaves(
    rng: np.random.Generator, height: int, width: int, finest: int, strength: float
) -> npt.NDArray[np.float32]:
    """Noise of all wavelengths from the whole image down to `finest` pixels, float32, shape (height, width)."""
    total = np.zeros((1, 1), np.float32)
    wavelength = 1 << (max(height, width) - 1).bit_length()
    level = np.float32(strength)
    while wavelength >= finest:
        grid = (height * 2 // wavelength + 1, width * 2 // wavelength + 1)
        total = _stretched(total, grid) + rng.standard_normal(grid, np.float32) * level
        wavelength //= 2
        level *= np.float32(_FALL)
    return _stretched(total, (height, width))


def _stretched(plane: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    return np.asarray(Image.fromarray(plane).resize(shape[::-1], Image.Resampling.BILINEAR))


def fingerprints(batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """The mean color of each cell of each image.

    Args:
        batch: uint8, shape (n, SIZE, SIZE, 3).

    Returns:
        float32, shape (n, CELLS x CELLS x 3).
    """
    side = SIZE // CELLS
    cells = batch.reshape(len(batch), CELLS, side, CELLS, side, 3)
    prints: npt.NDArray[np.float32] = cells.mean(axis=(2, 4), dtype=np.float32).reshape(len(batch), -1)
    return prints
