"""The channel between real ranks, over MPI and over Horovod, and the scan that is divided among them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from dist_loader.index import Index
from tests.distributed.launching import JOBS, Launch, environment, run
from tests.failures import documented

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

SCAN = Launch("mpi", 3)


@pytest.mark.parametrize(
    ("launch", "how", "kind"),
    [
        (Launch("mpi", 3), "alone", "MpiChannel"),
        (Launch("mpi", 2), "ending", "MpiChannel"),
        (Launch("gloo", 2), "missing", "HorovodChannel"),
    ],
    ids=str,
)
def test_what_one_rank_gives_the_others_get(launch: Launch, how: str, kind: str, tmp_path: Path) -> None:
    """And a rank that does not come is named, or has its end noticed; 75 says that another rank's code counts."""
    done = run(launch.command(JOBS / "channel.py", tmp_path, how), timeout=90)
    codes = {"alone": [7], "ending": [7, 75], "missing": [1]}  # horovodrun knows no other
    assert done.returncode in codes[how], done.stderr[-4000:]
    seen = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(launch.ranks)]
    for rank, saw in enumerate(seen):
        assert (saw["kind"], saw["place"]) == (kind, True)
        assert saw["sizes"] == [True] * 6
        assert saw["gathered"] == ([True] * launch.ranks if rank == 0 else [])
        assert saw["broadcast"] == [True] * 3
        assert saw["left"] >= max(other["entered"] for other in seen)
        assert saw["logs"] == [f"rank-{number}.log" for number in range(launch.ranks) if rank in (0, number)]
        assert saw["shared"] == []
        assert saw["heavy"] == ([] if how == "alone" else ["horovod", "keras", "tensorflow"])
    assert (tmp_path / "host-0" / "rank-1.log").read_text() == "line of rank 1\n"
    for saw in seen[:-1]:
        if how == "ending":
            assert "Horovod has been shut down" in saw["said"]
        else:
            assert saw["missing"] == [launch.ranks - 1]
            assert f"rank {launch.ranks - 1} did not come to the last within 2 s" in saw["said"]
            assert documented(saw["said"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """One class that is nearly all of it, and names of all sorts."""
    root = tmp_path / "photos"
    for name in (
        *(f"large/{part}/{half}/{number}.jpg" for part in range(12) for half in "xy" for number in range(5)),
        *(f"large/{name}" for name in ("5.jpg", "5-1.jpg", "50.JPG", "note.txt", ".hidden.jpg", ".git/1.jpg")),
        *("a b/ü.png", "a b/line\nbreak.png", "z/1.jpg", ".trash/1.jpg", "top.jpg"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    (root / "empty").mkdir()
    odd = os.fsencode(root) + b"/caf\xe9/\xff"
    Path(os.fsdecode(odd)).mkdir(parents=True)
    Path(os.fsdecode(odd + b"/\xfe\xff.jpg")).touch()
    (root / "z" / "again").symlink_to(root / "large" / "3")
    (root / "large" / "3" / "circle").symlink_to(root / "large")
    (root / "z" / "gone.jpg").symlink_to(root / "nowhere")
    for folder in (root, *root.rglob("*")):
        if folder.is_dir():
            os.utime(folder, (time.time() - 60,) * 2)
    return root


def test_a_divided_scan_is_that_of_one_process(tree: Path, tmp_path: Path) -> None:
    file, cache = tmp_path / "photos.index", tmp_path / "cache"
    done = run(SCAN.command(JOBS / "scan.py", tmp_path, "plain", tree, "--out", file, "--cache", cache), timeout=60)
    assert done.returncode == 0, done.stderr
    expected = Index.from_directory(tree)
    for index in (Index.open(file), Index.from_directory(tree, cache=cache)):
        assert (index.root, index.classes, index.fingerprint) == (expected.root, expected.classes, expected.fingerprint)
        assert [index.path(n) for n in range(len(index))] == [expected.path(n) for n in range(len(expected))]
        assert index.labels.tolist() == expected.labels.tolist()
    (made,) = cache.glob("*.index")
    before = made.stat().st_ino
    Index.from_directory(tree, cache=cache)
    assert made.stat().st_ino == before  # it was taken as it is
    assert done.stdout.count(f"{len(expected)} images") == done.stdout.count(expected.fingerprint) == 1
    for rank in range(3):
        loaded = {name.split(".")[0] for name in json.loads((tmp_path / f"modules-{rank}.json").read_text())}
        assert "mpi4py" in loaded
        assert not loaded & {"tensorflow", "keras", "horovod", "cv2", "PIL"}


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (["--classes", "large,z"], "is not one of the 2 classes"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        ([], "cannot read folder"),
    ],
)
def test_what_cannot_be_is_said_once(more: list[str], word: str, tree: Path, tmp_path: Path) -> None:
    if not more:
        (tree / "large" / "7" / "far").symlink_to("x" * 300)
    done = run(SCAN.command("-m", "dist_loader", "scan", tree, *more), timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == done.stderr.count(word) == 1
    assert "Traceback" not in done.stderr
    assert ("error: rank " in done.stderr) == (not more)


def test_a_rank_that_is_killed_ends_the_scan(tree: Path, tmp_path: Path) -> None:
    done = run(SCAN.command(JOBS / "scan.py", tmp_path, "killed", tree, "--out", tmp_path / "x.index"), timeout=60)
    assert done.returncode == 137, done.stderr
    assert not list(tmp_path.glob("*x.index*"))


def test_a_signal_leaves_nothing_half_written(tree: Path, tmp_path: Path) -> None:
    command = SCAN.command(JOBS / "scan.py", tmp_path, "slow", tree, "--out", tmp_path / "x.index")
    process = subprocess.Popen(command, env=environment(), start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "writing").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.glob(".x.index.*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert not list(tmp_path.glob("*x.index*"))
