"""The files that the programs of docs/from-keras-generators.md work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog", "owl")


def make(folder: Path) -> None:
    """Write all of them into a folder."""
    rng = np.random.default_rng(0)
    for part, least in (("photos/train", 11), ("photos/val", 4), ("mixed", 7)):
        for label, name in enumerate(CLASSES):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(least + label):
                pixels = rng.normal(60 + 60 * label, 20, (40, 48, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number:03}.jpg", quality=90)
    whole = (folder / "mixed" / "owl" / "000.jpg").read_bytes()
    (folder / "mixed" / "owl" / "000.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "mixed" / "cat" / "empty.png").touch()
