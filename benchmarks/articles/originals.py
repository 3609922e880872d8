"""What the articles do, written again for Keras 3: samples as float32, by Pillow, and no word about ranks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from PIL import Image

SIZE = 96


def read(path: str) -> npt.NDArray[np.float32]:
    """An image as the articles have it: resized, scaled to [-1, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIZE, SIZE)), np.float32) / 127.5 - 1


def read_all(paths: list[str], labels: npt.NDArray[np.int32]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """All images in memory, one after the other."""
    return np.stack([read(path) for path in paths]), labels


class Table(keras.utils.PyDataset):  # type: ignore[misc]
    """A `Sequence` over a table of paths, shuffled by itself; the last partial batch is dropped."""

    def __init__(self, paths: list[str], labels: npt.NDArray[np.int32], batch: int, workers: int) -> None:
        super().__init__(workers=max(1, workers), use_multiprocessing=workers > 0)
        self._paths = paths
        self._labels = labels
        self._batch = batch
        self._order = np.arange(len(paths))

    def __len__(self) -> int:
        return len(self._paths) // self._batch

    def __getitem__(self, at: int) -> tuple[Any, Any]:
        rows = self._order[at * self._batch : (at + 1) * self._batch]
        return np.stack([read(self._paths[row]) for row in rows]), self._labels[rows]

    def on_epoch_end(self) -> None:
        """Shuffle."""
        np.random.default_rng().shuffle(self._order)
