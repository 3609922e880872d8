"""Images that cannot be read, on real ranks: the training is that of the others alone, and each is told of once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_loader.index import Index
from tests.distributed.launching import JOBS, Launch, run
from tests.failures import documented

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

SAMPLES = 42
# A few of one step, all of rank 1 in the next, and a whole step of all ranks; one in the last, which is filled up.
BAD = [1, 5, 6, 12, 13, 14, 15, *range(24, 32), 40]
WAYS: list[Callable[[Path], object]] = [
    lambda path: path.write_bytes(b""),
    lambda path: path.write_bytes(path.read_bytes()[:60]) if path.exists() else None,
    lambda path: path.unlink(),
    lambda path: (path.unlink(), path.mkdir()),
    lambda path: (path.unlink(), os.mkfifo(path)),
    lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    lambda path: path.write_text("no image"),
    lambda path: os.truncate(path, 1 << 40),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    root = tmp_path / "photos"
    for number in range(SAMPLES):
        label = 3 * number // SAMPLES
        (root / str(label)).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 120, (8, 8, 3)) + 60 * (number % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(root / str(label) / f"{number:03d}.png")
    index = Index.from_directory(root)
    index.save(root / "index")
    for at, number in enumerate(BAD):
        WAYS[at % len(WAYS)](Path(index.path(number)))
    return root


def test_ranks_train_as_one_process_does_on_the_samples_that_can_be_read(photos: Path, tmp_path: Path) -> None:
    folders = tmp_path / "mpi", tmp_path / "one"
    for launch, folder in zip((Launch("mpi", 2), Launch("python")), folders, strict=True):
        folder.mkdir()
        more = ["stock"] if launch.ranks == 1 else []
        done = run(launch.command(JOBS / "bad_samples.py", photos, folder, *more), timeout=120)
        assert done.returncode == 0, done.stderr[-4000:]
        told = [line for line in done.stderr.splitlines() if "cannot read sample" in line]
        assert len(told) == len(set(told)) == len(BAD)
        assert all(map(documented, told))

    expected = np.load(folders[1] / "stock.npz")
    one = json.loads((folders[1] / "rank-0.json").read_text())
    for folder, rank in ((folders[0], 0), (folders[0], 1), (folders[1], 0)):
        weights = np.load(folder / f"rank-{rank}.npz")
        for name in expected.files:
            np.testing.assert_allclose(weights[name], expected[name], rtol=0, atol=1e-5)
        saw = json.loads((folder / f"rank-{rank}.json").read_text())
        assert saw["bad_samples"] == len(BAD)
        for numbers in ("history", "evaluated"):
            for name, values in one[numbers].items():
                np.testing.assert_allclose(saw[numbers][name], values, rtol=2e-6, atol=2e-6)
        assert saw["unread"] == (BAD if rank == 0 else None)
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "bad_samples.jsonl").read_text().splitlines()]
        assert sorted(line["sample"] for line in lines) == BAD
        assert all(line["reason"] and line["path"] and line["epoch"] == 0 for line in lines)
        assert {line["rank"] for line in lines} == ({0, 1} if folder == folders[0] else {0})
