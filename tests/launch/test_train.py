"""How the ready-made job ends: which exit code tells `dist-loader launch` that starting again may help."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

import dist_loader as dl
from dist_loader.errors import ChannelError

TRAIN = Path(__file__).parents[2] / "launch" / "train.py"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (dl.ConfigError("a seed that is none"), 2),
        (dl.SampleError(3, "photos/3.jpg", "not an image"), 2),
        (dl.ReadTimeout("no batch within 300 s"), 1),
        (ChannelError("rank 2 did not come"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_did_not_come_in_time_is_no_bad_input(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 says that only the user can mend it, and ends the restarts."""
    spec = importlib.util.spec_from_file_location("train", TRAIN)
    train = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train)

    def fails(_: object) -> None:
        raise error

    monkeypatch.setattr(train, "train", fails)
    monkeypatch.setattr("sys.argv", ["train.py", "--data", "photos"])
    assert train.main() == code
    assert capsys.readouterr().err == f"train.py: rank 0: error: {error}\n"
