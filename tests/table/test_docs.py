"""The programs in docs/tables.md and docs/readers.md run as they stand."""

from __future__ import annotations

import re
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


def programs(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL))


def made_homes() -> None:
    rng = np.random.default_rng(0)
    lines = ["photo,rooms,area,town,price"]
    for number in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(f"{number}.jpg")
        lines.append(f"{number}.jpg,{number % 5 + 1},{20.5 + number},{'Ulm' if number % 3 else 'Bonn'},{number * 1.5}")
    Path("homes.csv").write_text("\n".join(lines) + "\n")
    for number in range(8):
        Image.fromarray(rng.integers(0, 4, (40, 50), np.uint8)).save(f"{number}.png")
    scenes = "".join(f"{number}.jpg,{number}.png\n" for number in range(8))
    Path("scenes.csv").write_text("photo,mask\n" + scenes)


def made_clips() -> None:
    for number in range(20):
        folder = Path("clips") / ("loud" if number % 2 else "quiet")
        folder.mkdir(parents=True, exist_ok=True)
        with wave.open(str(folder / f"{number}.wav"), "wb") as clip:
            clip.setnchannels(1)
            clip.setsampwidth(2)
            clip.setframerate(8000)
            clip.writeframes(np.full(8000, 1000 * (number % 2), np.int16).tobytes())
    (Path("clips") / "loud" / "cut.wav").write_bytes(b"RIFF")


def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: object) -> None:
    monkeypatch.chdir(tmp_path)
    made_homes()
    names: dict = {}
    exec(programs("tables.md"), names)
    assert names["homes"].classes("town") == ("Bonn", "Ulm")
    for name in ("train", "valid", "segmentation"):
        names[name].close()


def test_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: object) -> None:
    monkeypatch.chdir(tmp_path)
    made_clips()
    names: dict = {}
    exec(programs("readers.md"), names)
    clips, train = names["clips"], names["train"]
    assert train.missing(1) == {number for number in range(clips.samples) if clips.name(number).endswith("cut.wav")}
    x, y, weights = names["stereo"][0]
    assert x["left"].shape == y["depth"].shape == weights.shape == (8, 4, 4, 1)
    for name in ("train", "stereo"):
        names[name].close()
