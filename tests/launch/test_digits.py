import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

SCRIPT = Path(__file__).parents[2] / "launch" / "digits.py"


def write(out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, out], capture_output=True, text=True, timeout=120)


def fingerprint(root: Path) -> dict[str, str]:
    return {str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in root.rglob("*.png")}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "deep" / "digits"
    done = write(out)
    assert done.returncode == 0, done.stderr
    return out


def test_every_real_image_is_in_exactly_one_split_with_its_pixels_and_its_label(digits: Path) -> None:
    source = load_digits()
    wanted = sorted((int(label), np.round(image * 255 / 16).astype("uint8").tobytes())
                    for image, label in zip(source.images, source.target, strict=True))  # fmt: skip
    found = []
    for file in digits.glob("*/*/*.png"):
        with Image.open(file) as image:
            assert (image.mode, image.size) == ("L", (8, 8))
            found.append((int(file.parent.name), image.tobytes()))
    assert sorted(found) == wanted
    assert max(max(pixels) for _, pixels in found) == 255


def test_no_image_is_in_both_splits_and_every_class_is_split_one_to_five(digits: Path) -> None:
    contents = {split: set(fingerprint(digits / split).values()) for split in ("train", "val")}
    assert not contents["train"] & contents["val"]
    for digit in map(str, range(10)):
        val, train = (len(list((digits / split / digit).iterdir())) for split in ("val", "train"))
        assert val == (val + train) // 5


def test_a_complete_folder_is_left_alone(digits: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in digits.rglob("*")}
    done = write(digits)
    assert done.returncode == 0
    assert "already" in done.stdout
    assert {file: file.stat().st_mtime_ns for file in digits.rglob("*")} == before


@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_an_incomplete_folder_is_written_anew_to_the_same_split(digits: Path, tmp_path: Path, damage: str) -> None:
    out = shutil.copytree(digits, tmp_path / "digits")
    victim = next((out / "train" / "3").iterdir())
    victim.unlink() if damage == "missing" else victim.write_bytes(b"")
    assert write(out).returncode == 0
    assert fingerprint(out) == fingerprint(digits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["digits"]


def test_someone_elses_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = write(tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_importing_it_costs_nothing() -> None:
    code = "import sys; import digits; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPT.parent, capture_output=True, text=True, timeout=60)
    assert not {"numpy", "sklearn", "PIL"} & set(done.stdout.split())
    assert "digits" in done.stdout.split()
