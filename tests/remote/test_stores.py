"""S3 and Google Cloud Storage: listed as a local folder would be, read by a sequence, and their failures."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dist_loader.errors import ConfigError
from dist_loader.index import Index
from dist_loader.remote.fetch import Fetcher
from dist_loader.remote.retry import FetchError, Limits
from dist_loader.sequence.image import ImageSequence
from dist_loader.world import World
from tests.remote.conftest import Site, Store, free_address, full_server

pytestmark = pytest.mark.distributed

QUICK = Limits(tries=2, connect=1.0, silence=0.4, one_try=10.0, total=20.0)  # the client alone takes a second to make
PATIENT = Limits(tries=2, connect=10.0, silence=10.0, one_try=20.0, total=30.0)
NAMES = [  # what a local folder and a bucket must list alike
    "cat/b.png", "cat/a.PNG", "cat/a-b.png", "cat/a/x.png", "cat/a0.png", "cat/notes.txt", "cat/.hidden.png",
    "cat/.thumbs/a.png", "dog/deep/er/ä ö#%41.png", "dog/1.png", "ape/only.txt", ".git/x.png", "stray.png",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for number, name in enumerate(NAMES):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path, "png")
    return root


@pytest.fixture(scope="module")
def train(store: Store, bucket: Any, folder: Path) -> str:
    """Address of a copy of the folder in a store."""
    for name in NAMES:
        bucket.pipe_file(f"photos/train/{name}", (folder / name).read_bytes())
    return f"{store.scheme}://photos/train"


def test_a_bucket_is_indexed_as_a_local_folder_of_the_same_files(train: str, folder: Path) -> None:
    local, remote = Index.from_directory(folder), Index.from_directory(f"{train}/")
    assert remote.classes == local.classes == ("ape", "cat", "dog")
    assert remote.labels.tolist() == local.labels.tolist()
    assert [remote.path(n) for n in range(len(remote))] == [
        local.path(n).replace(str(folder), train) for n in range(len(local))
    ]
    assert remote.fingerprint == local.fingerprint
    chosen = Index.from_directory(train, classes=["dog", "cat", "ape", "newt"])
    assert chosen.fingerprint == Index.from_directory(folder, classes=["dog", "cat", "ape", "newt"]).fingerprint


@pytest.mark.parametrize(
    ("root", "more", "words"),
    [
        ("STORE://photos/nothing", {}, "does not exist"),
        ("STORE://nobodys-bucket/train", {}, "does not exist"),
        ("STORE://photos/train/dog/deep/er", {}, "no class folders and 1 images directly in it"),
        ("STORE://photos/train/cat/b.png", {}, "is a file"),
        ("STORE://photos/train", {"suffixes": [".tiff"]}, "no images"),
        ("STORE://photos/train", {"suffixes": ".png"}, "suffixes must be a list"),
        ("STORE://photos/train", {"classes": ["cat", "dog"]}, "'ape'.*not one of the 2 classes"),
        ("STORE://photos/train", {"classes": ["cat", "cat"]}, "twice"),
        ("https://photos/train", {}, "Index.from_paths"),
        ("memory://photos/train", {}, "not asynchronous"),
        ("nothing-such://photos", {}, "nothing-such"),
    ],
)
def test_what_cannot_be_indexed_is_said_by_name(train: str, store: Store, root: str, more: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Index.from_directory(root.replace("STORE", store.scheme), **more)


def test_a_sequence_delivers_the_same_images_from_a_bucket(train: str, folder: Path, tmp_path: Path) -> None:
    def batches(root: Any, **more: Any) -> list[np.ndarray]:
        sequence = ImageSequence(Index.from_directory(root), (8, 8), 3, world=World(0, 1, 0, 1), threads=2, **more)
        got = [array for step in range(len(sequence)) for array in sequence[step]]
        sequence.close()
        return got

    local = batches(folder)
    for _ in range(2):
        remote = batches(train, requests=8, local_copy=tmp_path, local_copy_bytes="1MB")
        assert all(np.array_equal(a, b) for a, b in zip(local, remote, strict=True))
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1 + len(Index.from_directory(folder))


@pytest.mark.parametrize("key", ["photos/train/gone.png", "nobodys-bucket/a.png"])
def test_a_key_that_is_not_there_is_asked_for_once(train: str, store: Store, key: str) -> None:
    with pytest.raises(FetchError, match=r"no such file \(1 try"):
        Fetcher(store.scheme, 1, PATIENT).read(f"{store.scheme}://{key}")


def test_credentials_that_are_refused_are_an_error_at_once(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.point_to(site.address, monkeypatch)
    asked = store.path.format("a.png")
    site.faults[asked] = [403]
    with pytest.raises(FetchError, match=r"(403|Forbidden).*\(1 try"):
        Fetcher(store.scheme, 1, QUICK).read(f"{store.scheme}://photos/a.png")
    assert site.requests[asked] == 1


def test_a_store_that_is_gone_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.point_to(free_address(), monkeypatch)
    with pytest.raises(FetchError, match=r"[Cc]onnect.*\(2 tries"):
        Fetcher(store.scheme, 1, QUICK).read(f"{store.scheme}://photos/a.png")


def test_a_store_that_does_not_take_the_connection_is_tried_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with full_server() as address:
        store.point_to(address, monkeypatch)
        with pytest.raises(FetchError, match=r"\(2 tries"):
            Fetcher(store.scheme, 1, QUICK).read(f"{store.scheme}://photos/a.png")


@pytest.mark.parametrize("fault", [503, "silent", "half", "cut"])
def test_a_store_that_fails_is_tried_again_a_bounded_number_of_times(
    store: Store, site: Site, monkeypatch: pytest.MonkeyPatch, fault: int | str
) -> None:
    store.point_to(site.address, monkeypatch)
    failing, recovering = store.path.format("a.png"), store.path.format("b.png")
    site.files = dict.fromkeys((failing, recovering), b"0123456789")
    site.faults = {failing: [fault], recovering: [fault, "ok"]}
    fetcher = Fetcher(store.scheme, 1, QUICK)
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"\(2 tries"):
        fetcher.read(f"{store.scheme}://photos/a.png")
    assert site.requests[failing] == 2
    assert time.monotonic() - start < QUICK.total + 1
    assert fetcher.read(f"{store.scheme}://photos/b.png") == b"0123456789"


def test_a_store_that_never_answers_cannot_hold_up_the_listing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dist_loader.remote.listing._LIMITS", QUICK)
    root = f"{store.scheme}://photos/train"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        store.point_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        start = time.monotonic()
        with pytest.raises(ConfigError, match=rf"cannot list '{root}'.*tries"):
            Index.from_directory(root)
        assert time.monotonic() - start < QUICK.total + 2
