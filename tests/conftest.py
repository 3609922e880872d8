"""Fixtures for all tests."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from dist_loader.index import Index

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow

settings.register_profile("dist_loader", deadline=None)  # a busy machine is not an error
settings.load_profile("dist_loader")


# Of the tests that start ranks, the files that take minutes begin first: two at a time, none is left for the end alone.
LONGEST = ("test_parity", "test_rows", "test_resume", "test_hosts", "test_train_job", "test_slurm", "test_drills")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; the tests of each keep theirs."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Index]:
    """An index of some PNG images of 8 x 8 pixels in two classes, each showing its own sample number.

    Red is the number modulo 256, green is the number divided by 256, blue is the label.
    """

    @cache
    def index(samples: int) -> Index:
        root = tmp_path_factory.mktemp(f"numbered-{samples}")
        for number in range(samples):
            label = 2 * number // samples
            color = np.array([number % 256, number // 256, label], np.uint8)
            save(root / "ab"[label] / f"{number:05}.png", np.broadcast_to(color, (8, 8, 3)))
        made = Index.from_directory(root)
        assert [made.path(number)[-9:] for number in range(samples)] == [f"{n:05}.png" for n in range(samples)]
        return made

    def save(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)

    return index


@pytest.fixture
def noting() -> type:
    """A kind of ImageSequence whose `addresses` are where the images of the batches lie that it gave."""
    from dist_loader.sequence.image import ImageSequence  # loads TensorFlow, which most tests do without

    class Noting(ImageSequence):
        addresses: ClassVar[list[int]] = []

        def __getitem__(self, step: int) -> tuple[Any, ...]:
            batch = super().__getitem__(step)
            self.addresses.append(batch[0].ctypes.data)
            return batch

    return Noting


@pytest.fixture
def threads() -> Iterator[Callable[[], list[str]]]:
    """Names of the threads that dist_loader runs since the test began. None may be left at its end."""
    before = set(threading.enumerate())

    def running() -> list[str]:
        begun = set(threading.enumerate()) - before
        return [thread.name for thread in begun if thread.name.startswith("dist_loader")]

    yield running
    deadline = time.monotonic() + 10
    while running() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running() == []
