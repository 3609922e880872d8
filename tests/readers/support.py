"""What the tests of readers share: images, folders for them, and reading them."""

import numpy as np
from PIL import Image

from dist_loader.index import Index

HEIGHT, WIDTH = 20, 30
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}


def index_of(root):
    return Index.from_directory(root)


def read(reader, numbers=(0,), epoch=0):
    """What a reader makes of samples, into memory that is full of something else."""
    out = np.full((len(numbers), *reader.shape), 77, np.uint8)
    reader.read(np.array(numbers, np.int64), epoch, out)
    return out


def folder(tmp_path, name="image.png"):
    (tmp_path / "class").mkdir(exist_ok=True)
    return tmp_path / "class" / name


def pixels(colors=None, height=HEIGHT, width=WIDTH, seed=0):
    """(height, width, 3) noise, of a few colors if so asked."""
    rng = np.random.default_rng(seed)
    if colors is None:
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    return rng.integers(0, 256, (colors, 3), np.uint8)[rng.integers(0, colors, (height, width))]


def photo(height, width):
    """Something like a photograph: soft areas, edges, and a little grain."""
    rng = np.random.default_rng(5)
    soft = Image.fromarray(pixels(height=9, width=12, seed=3)).resize((width, height), Image.Resampling.BICUBIC)
    edges = np.add.outer(np.arange(height) // 90, np.arange(width) // 70)[..., None] % 2 * 40
    grain = rng.normal(0, 6, (height, width, 3))
    return Image.fromarray((np.asarray(soft) * 0.7 + edges + grain).clip(0, 255).astype(np.uint8))


def lying(upright, orientation):
    """How a camera stores (height, width, 3) pixels so that the orientation makes them upright again."""
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
