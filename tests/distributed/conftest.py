"""Images for the ranks, and launches shared by the tests that look at their results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 PNG files of 8 x 8 pixels in 3 classes that a small net can tell apart."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(60):
        folder = root / "abc"[number % 3]
        folder.mkdir(exist_ok=True)
        pixels = rng.integers(0, 120, (8, 8)) + 60 * (number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:03d}.png")
    return root


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    """Call a function with a folder of its own, once a session for every key."""
    done: dict[str, object] = {}

    def call(key: str, function: Callable[[Path], object]) -> object:
        if key not in done:
            done[key] = function(tmp_path_factory.mktemp(key.replace("/", "-")))
        return done[key]

    return call
