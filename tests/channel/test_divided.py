"""An index made by several ranks is the one that a single process makes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dist_loader.cli.main import main
from dist_loader.errors import ConfigError, DistLoaderError, ReadTimeout
from dist_loader.index import Index, lister
from dist_loader.index.divided import gathered
from dist_loader.index.selection import gathered as in_memory


def index_of(found: Any, root: Path) -> Index:
    labels, paths, offsets = (in_memory(found.arrays[name]) for name in ("labels", "paths", "offsets"))
    return Index(str(root), found.classes, labels, paths, offsets)


def on(ranks: int, on_ranks: Callable, root: Path, classes: tuple[str, ...] | None = None, threads: int = 2) -> list:
    top = os.fsencode(root)
    return on_ranks(ranks, lambda channel: gathered(channel, top, (".jpg",), classes, threads, lambda _: None))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(st.text("ab-./0é", min_size=1, max_size=10), min_size=1, max_size=25), ranks=st.integers(1, 4))
def test_any_tree_on_any_number_of_ranks(
    drawn: list[str], ranks: int, on_ranks: Callable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in ["k/0.jpg", *drawn]:
        path = root / "a" / f"{name.strip('/.') or 'x'}.jpg".replace("..", "_")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue  # a file and a folder of one name
    expected = Index.from_directory(root, suffixes=[".jpg"])
    found, *others = on(ranks, on_ranks, root)
    assert others == [None] * (ranks - 1)
    index = index_of(found, root)
    assert index.fingerprint == expected.fingerprint
    assert index.offsets.tolist() == expected.offsets.tolist()
    assert np.array_equal(index.buffer, expected.buffer)


def test_classes_keep_the_numbers_that_are_asked_for(on_ranks: Callable, tmp_path: Path) -> None:
    for name in ("b/1.jpg", "a/deep/2.jpg", "c/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    classes = ("c", "nowhere", "a", "b")
    found, _, _ = on(3, on_ranks, tmp_path, classes)
    assert index_of(found, tmp_path).fingerprint == Index.from_directory(tmp_path, classes=classes).fingerprint


@pytest.mark.parametrize(
    ("classes", "word"), [(("a",), "'b' in .* is not one of the 1 classes"), (None, "cannot read")]
)
def test_all_ranks_have_the_error_of_one(
    classes: tuple[str, ...] | None, word: str, on_ranks: Callable, tmp_path: Path
) -> None:
    for name in ("a/1.jpg", "b/c/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "c" / "far").symlink_to("x" * 300)
    errors = on(3, on_ranks, tmp_path, classes)
    assert len({str(error) for error in errors}) == 1
    for error in errors:
        assert isinstance(error, ConfigError)
        with pytest.raises(ConfigError, match=word):
            raise error


def test_a_disk_that_does_not_answer_is_an_error_on_all(
    on_ranks: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    contents, over = lister.contents, []

    def stuck(top: bytes, number: int, path: bytes, *more: Any) -> Any:
        while path == b"b/" and not over:
            lister.time.sleep(0.01)
        return contents(top, number, path, *more)

    monkeypatch.setattr(lister, "contents", stuck)
    monkeypatch.setattr(lister, "_SECONDS_WITHOUT_ANSWER", 0.3)
    errors = on(2, on_ranks, tmp_path)
    over.append(True)
    for error in errors:
        assert isinstance(error, DistLoaderError)
        assert "no answer from the file system for 0.3 s while listing" in str(error)
    assert not any(isinstance(error, ReadTimeout) for error in errors)  # text, as all ranks have it


def test_the_command_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a/1.jpg", "b/2.JPG", "b/3.npy"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    file = tmp_path / "out.index"
    assert main(["scan", str(tmp_path / "in"), "--out", str(file), "--suffixes", "npy", "--classes", "b,a"]) == 0
    index = Index.open(file)
    assert (index.classes, index.labels.tolist(), index.path(0)) == (("b", "a"), [0], f"{tmp_path}/in/b/3.npy")
    assert f"1 images in 2 folders, 2 classes, fingerprint {index.fingerprint}" in capsys.readouterr().out
    assert main(["scan", str(tmp_path / "in")]) == 0
    assert Index.from_directory(tmp_path / "in").fingerprint in capsys.readouterr().out
    for arguments, word in (
        ([str(tmp_path / "none")], "does not exist"),
        ([str(tmp_path / "in"), "--out", "/proc/x"], "cannot write index"),
        ([str(tmp_path / "in"), "--suffixes", ".tif"], "ending in .tif"),
        (["s3://bucket/x"], "scan is for folders"),
        ([""], "empty path"),
    ):
        assert main(["scan", *arguments]) == 2
        assert word in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["scan"])
    assert ended.value.code == 2
