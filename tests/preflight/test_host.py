"""What a host tells about itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dist_loader.index import Index
from dist_loader.preflight import data
from dist_loader.preflight.facts import Facts, of_json
from dist_loader.preflight.host import MARK
from tests.preflight.conftest import ROOT, package


def tell(wanted: dict[str, object], **env: str) -> Facts:
    """The facts, as another process prints them."""
    done = subprocess.run(
        [sys.executable, "-m", "dist_loader.preflight.host", json.dumps(wanted)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return of_json(json.loads(done.stdout.removeprefix(MARK)))


def photos(folder: Path, classes: int = 3, each: int = 2) -> Path:
    for label in range(classes):
        (folder / f"class{label:03}").mkdir(parents=True)
        for number in range(each):
            (folder / f"class{label:03}" / f"{number}.jpg").touch()
    return folder


def test_facts_of_this_machine(tmp_path: Path) -> None:
    package(tmp_path / "path", "keras", "3.0.1")
    (tmp_path / "job.py").write_text("pass")
    folder = photos(tmp_path / "photos")
    facts = tell(
        {"folder": str(tmp_path), "script": str(tmp_path / "job.py"), "data": str(folder)},
        PYTHONPATH=f"{tmp_path / 'path'}:{ROOT}",
        SSH_CONNECTION="127.0.0.1 5000 127.0.0.1 22",
        CUDA_VISIBLE_DEVICES="0,1",
    )
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.versions["keras"] == "3.0.1"
    assert (facts.usable, facts.reached_by, facts.client) == (2, "lo", "127.0.0.1")
    assert facts.interfaces["lo"] == "127.0.0.1"
    assert facts.data is not None
    assert (facts.data.fingerprint, facts.data.samples) == (Index.from_directory(folder).fingerprint, 6)
    assert facts.has_folder
    assert facts.script is not None
    assert facts.free[str(tmp_path)] > 0
    assert abs(facts.clock[1] - time.time()) < 10


def test_what_is_not_there(tmp_path: Path) -> None:
    facts = tell(
        {"folder": str(tmp_path / "no"), "script": str(tmp_path / "no.py"), "mpirun": str(tmp_path / "mpirun")}
    )
    assert (facts.has_folder, facts.script, facts.mpirun, facts.data) == (False, None, None, None)


def test_it_loads_nothing_heavy_unless_data_are_asked_for() -> None:
    program = (
        "import sys; from dist_loader.preflight.host import look; from dist_loader.preflight.facts import Wanted; "
        "look(Wanted('/')); print([n for n in ('tensorflow', 'keras', 'horovod', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stderr


def test_a_saved_index(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    made = Index.from_directory(folder)
    made.save(tmp_path / "photos.index")
    seen = data.look(str(tmp_path / "photos.index"), 5)
    assert (seen.fingerprint, seen.samples, seen.problem) == (made.fingerprint, 6, None)
    folder.rename(tmp_path / "elsewhere")
    seen = data.look(str(tmp_path / "photos.index"), 5)
    assert seen.problem is not None
    assert "photos/class000/0.jpg is not" in seen.problem


def test_a_folder_that_takes_too_long_is_seen_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos", classes=20)
    whole = data.look(str(folder), 30)
    assert whole.fingerprint is not None
    assert len(whole.parts) == 1 + data.SOME

    over = threading.Event()

    def slow(*_: object) -> None:
        over.wait(60)
        raise TimeoutError  # for a thread that was left behind, and that nobody hears any more

    monkeypatch.setattr("dist_loader.index.build.build", slow)
    part = data.look(str(folder), 0.5)
    assert (part.fingerprint, part.problem) == (None, None)
    assert part.parts == whole.parts
    monkeypatch.setattr("dist_loader.index.scan.class_folders", slow)
    assert data.look(str(folder), 0.1).problem == f"{folder} does not answer within 0.1 s"
    over.set()


@pytest.mark.parametrize("made", ["missing", "empty", "file"])
def test_data_that_cannot_be_read(tmp_path: Path, made: str) -> None:
    path = tmp_path / "photos"
    if made == "empty":
        path.mkdir()
    if made == "file":
        path.write_text("no index")
    problem = data.look(str(path), 5).problem
    assert problem is not None
    assert str(path) in problem
