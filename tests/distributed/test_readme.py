"""What README shows, run."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests.distributed.launching import BIN, ROOT, Launch, environment, run

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_trains(images: Path, tmp_path: Path) -> None:
    """The very text, on fewer and smaller batches, and for one epoch."""
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    for shown, tried in {"device_batch=64": "device_batch=2", "epochs=90": "epochs=1"}.items():
        assert shown in code
        code = code.replace(shown, tried)
    for label in "abc":
        (tmp_path / "photos" / "train" / label).mkdir(parents=True)
        picture = next((images / label).iterdir())
        shutil.copy(picture, tmp_path / "photos" / "train" / label)
    (tmp_path / "job.py").write_text(code)
    command = Launch("python").command("job.py")
    done = run(["env", f"--chdir={tmp_path}", *command], env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    assert "epoch 1/1" in done.stdout
    assert list((tmp_path / "runs" / "photos").glob("epoch-*.npz"))


@pytest.mark.skipif(BIN.parent != ROOT / ".venv", reason="make train uses the environment of the checkout")
def test_make_train(tmp_path: Path) -> None:
    make = ["make", "-C", str(ROOT), "train", "EPOCHS=1", f"RUN_DIR={tmp_path / 'a run'}", "SEED=3", "NP=2"]
    done = run(make, env={**environment(), "PATH": os.environ["PATH"]})
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((tmp_path / "a run" / "summary.json").read_text())
    assert (summary["launcher"], summary["world_size"], summary["epochs"]) == ("horovodrun", 2, 1)
    assert summary["samples"] + summary["val_samples"] == 1797
    assert "oneDNN" not in done.stderr
    shown = set(re.findall(r"^\[0\]<stdout>:(\w[\w ]*?)  ", README, re.MULTILINE))
    printed = set(re.findall(r"^\[0\]<stdout>:(\w[\w ]*?)  ", done.stdout, re.MULTILINE))
    assert shown <= printed | {"epoch"}


def test_every_file_that_readme_names_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
