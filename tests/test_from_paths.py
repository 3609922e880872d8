"""Indexes of listed paths and addresses."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.index import Index


def paths_of(index: Index) -> list[str]:
    return [index.path(number) for number in range(len(index))]


@pytest.mark.parametrize(
    ("paths", "root"),
    [
        (["https://host/b/1.jpg", "https://host/a/2.jpg"], "https://host"),
        (["https://host/a/1.jpg?key=a/b", "https://host/a/1.jpg?key=a/c"], "https://host/a"),
        (["https://one/1.jpg", "https://two/1.jpg"], "https:/"),
        (["s3://bucket/train/1.jpg"], "s3://bucket/train"),
        (["/data/ab/1.jpg", "/data/ac/2.jpg"], "/data"),
        (["/a.jpg", "/b/c.jpg"], ""),
        (["/a/x", "/a/x/y"], "/a"),
    ],
)
def test_paths_come_back_as_they_were_in_their_order(paths: list[str], root: str) -> None:
    index = Index.from_paths(paths, [1] * len(paths))
    assert paths_of(index) == paths
    assert index.root == root


@given(st.lists(st.text("ab/é#?", min_size=1, max_size=6), min_size=1, max_size=8), st.sampled_from(["s3://", "/"]))
def test_any_paths_come_back_as_they_were(names: list[str], start: str) -> None:
    paths = [f"{start}h/{name}" for name in names]
    assert paths_of(Index.from_paths(paths, [0] * len(paths))) == paths


def test_relative_paths_are_below_root_or_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.path.realpath(tmp_path)
    assert paths_of(Index.from_paths([Path("a/1.jpg"), "b/2.jpg"], [0, 1])) == [f"{here}/a/1.jpg", f"{here}/b/2.jpg"]
    assert paths_of(Index.from_paths(["1.jpg"], [0], root="c/")) == [f"{here}/c/1.jpg"]
    assert paths_of(Index.from_paths(["a/1.jpg"], [0], root="s3://bucket/t/")) == ["s3://bucket/t/a/1.jpg"]


def test_an_index_from_a_list_is_that_of_the_folder(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scanned = Index.from_directory(tmp_path)
    listed = Index.from_paths(paths_of(scanned), ["cat", "cat", "dog"])
    assert (listed.root, listed.classes) == (scanned.root, scanned.classes)
    assert listed.fingerprint == scanned.fingerprint
    assert Index.from_paths(paths_of(scanned), np.array([0, 0, 1]), ["cat", "dog"]).fingerprint == scanned.fingerprint
    assert Index.from_paths(paths_of(scanned), ["cat", "cat", "cat"]).fingerprint != scanned.fingerprint


def test_classes_are_numbered_in_byte_order_unless_they_are_given() -> None:
    paths = ["/1", "/2", "/3"]
    assert Index.from_paths(paths, ["z", "é", "a"]).classes == ("a", "z", "é")
    given_order = Index.from_paths(paths, ["z", "b", "z"], classes=["z", "a", "b"])
    assert given_order.labels.tolist() == [0, 2, 0]
    assert Index.from_paths(paths, [0, 2, 0]).classes == ("0", "1", "2")


@pytest.mark.parametrize(
    ("paths", "labels", "more", "words"),
    [
        ([], [], {}, "at least one path"),
        ("/a.jpg", [0], {}, "must be a list"),
        (["/a", "/b"], [0], {}, "2 paths with 1 labels"),
        (["/a", ""], [0, 1], {}, "path 1"),
        (["/a", 7], [0, 1], {}, None),
        (["/a", "s3://b/c"], [0, 1], {}, "one kind, got local paths, s3://"),
        (["/a/b"], [0], {"root": "/c"}, "'/a/b', is not below root='/c'"),
        (["https://h/b?key=SECRET"], [0], {"root": "https://g"}, r"'https://h/b\?\.\.\.'"),
        (["/a"], [0.5], {}, "labels"),
        (["/a"], [[0]], {}, "labels"),
        (["/a"], [-1], {}, "from 0"),
        (["/a"], [2], {"classes": ["a", "b"]}, "from 0 to 1"),
        (["/a"], ["c"], {"classes": ["a", "b"]}, "'c' of path 0"),
        (["/a"], ["c"], {"classes": ["c", "c"]}, "twice"),
        (["/a"], ["c"], {"classes": "c"}, "list of class names"),
    ],
)
def test_lists_that_do_not_fit_are_refused(paths: list, labels: list, more: dict, words: str | None) -> None:
    with pytest.raises((ConfigError, TypeError), match=words) as caught:
        Index.from_paths(paths, labels, **more)
    assert "SECRET" not in str(caught.value)
    assert words is None or caught.type is ConfigError


def test_an_address_with_a_password_is_not_shown() -> None:
    assert "word" not in repr(Index.from_paths(["https://me:word@host/a/1.jpg"], [0]))
