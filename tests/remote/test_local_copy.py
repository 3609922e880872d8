"""The local copy: what it keeps, for whom, how much, and what it does when it is damaged, full or killed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from dist_loader.errors import ConfigError
from dist_loader.remote.local_copy import LocalCopy

pytestmark = pytest.mark.distributed

SIZE = 1000
TRAILER = 8


class Remote:
    """Counts what is fetched."""

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()

    def fetch(self, address: str) -> bytes:
        self.fetched[address] += 1
        return content(address)


def content(address: str) -> bytes:
    return (address.encode() * SIZE)[:SIZE]


def kept(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != "count"]


def held_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in kept(folder))


def addresses(count: int) -> list[str]:
    return [f"s3://bucket/{number}.jpg" for number in range(count)]


def test_what_was_fetched_once_comes_from_the_folder_also_for_another_process(tmp_path: Path) -> None:
    first, second = Remote(), Remote()
    for remote in (first, second):
        copy = LocalCopy(tmp_path, 10**6, remote.fetch)
        assert [copy.read(address) for address in addresses(20)] == [content(address) for address in addresses(20)]
    assert sum(first.fetched.values()) == 20
    assert not second.fetched


def test_an_empty_file_is_kept_too(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path, 10**6, lambda _: b"")
    assert copy.read("s3://b/a") == copy.read("s3://b/a") == b""


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped"])
def test_a_damaged_file_is_fetched_again(tmp_path: Path, damage: str) -> None:
    remote = Remote()
    copy = LocalCopy(tmp_path, 10**6, remote.fetch)
    address = addresses(1)[0]
    copy.read(address)
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    file.write_bytes({"truncated": whole[:-1], "empty": b"", "flipped": flipped}[damage])
    assert copy.read(address) == content(address)
    assert copy.read(address) == content(address)
    assert remote.fetched[address] == 2


def test_no_more_than_the_limit_is_kept_and_what_this_training_uses_stays(tmp_path: Path) -> None:
    remote = Remote()
    copy = LocalCopy(tmp_path, 10 * (SIZE + TRAILER) + 5, remote.fetch)
    for _ in range(3):
        for number, address in enumerate(addresses(25)):
            assert copy.read(address) == content(address)
            assert number % 6 or held_bytes(tmp_path) <= 10 * (SIZE + TRAILER) + 5
    assert len(kept(tmp_path)) == 10
    assert sum(remote.fetched.values()) == 25 + 2 * 15  # the ten that fitted were fetched once


def test_of_earlier_trainings_the_files_used_least_recently_go_first(tmp_path: Path) -> None:
    limit = 20 * (SIZE + TRAILER)
    old = LocalCopy(tmp_path, limit, Remote().fetch)
    for address in addresses(20):
        old.read(address)
    for file in kept(tmp_path):
        os.utime(file, (1, 1))
    for address in addresses(20)[5:]:
        old.read(address)  # used again
    for file in kept(tmp_path):
        os.utime(file, (10, 10)) if file.stat().st_mtime > 1 else None
    remote = Remote()
    new = LocalCopy(tmp_path, limit, remote.fetch)
    new.read("s3://bucket/new.jpg")
    assert held_bytes(tmp_path) <= limit
    again = LocalCopy(tmp_path, limit, remote.fetch)
    for address in [*addresses(20)[8:], "s3://bucket/new.jpg"]:
        again.read(address)
    assert remote.fetched == {"s3://bucket/new.jpg": 1}


def test_nothing_beside_its_own_files_is_touched(tmp_path: Path) -> None:
    mine = tmp_path / "thesis.txt"
    mine.write_text("mine")
    os.utime(mine, (1, 1))
    copy = LocalCopy(tmp_path, 3 * (SIZE + TRAILER), Remote().fetch)
    for address in addresses(9):
        copy.read(address)
    assert mine.read_text() == "mine"


def test_a_disk_that_is_nearly_full_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    whole = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: whole._replace(free=10 << 20))
    remote = Remote()
    copy = LocalCopy(tmp_path, 10**9, remote.fetch)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            for address in addresses(3):
                assert copy.read(address) == content(address)
    assert kept(tmp_path) == []
    assert len(caplog.records) == 1
    assert "10 MiB left" in caplog.text


def test_a_disk_that_cannot_be_written_any_more_costs_the_copy_and_not_the_training(tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path, 10**6, Remote().fetch)
    for folder in (tmp_path / "dist_loader-files-1").iterdir():
        if folder.is_dir():
            folder.rmdir()
            folder.write_text("in the way")
    assert [copy.read(address) for address in addresses(3)] == [content(address) for address in addresses(3)]


def test_many_threads_and_processes_share_it(tmp_path: Path) -> None:
    limit = 60 * (SIZE + TRAILER)
    code = (
        "import sys; from concurrent.futures import ThreadPoolExecutor\n"
        "from dist_loader.remote.local_copy import LocalCopy\n"
        "addresses = [f's3://bucket/{n}.jpg' for n in range(100)]\n"
        "content = lambda address: (address.encode() * 1000)[:1000]\n"
        "copy = LocalCopy(sys.argv[1], int(sys.argv[2]), content)\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    for _ in range(5):\n"
        "        assert all(pool.map(lambda a: copy.read(a) == content(a), addresses))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(limit)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    most = 0
    while any(process.poll() is None for process in running):
        with contextlib.suppress(FileNotFoundError):
            most = max(most, held_bytes(tmp_path))
        time.sleep(0.01)
    assert [(process.returncode, process.communicate()[1].count("Error")) for process in running] == [(0, 0)] * 3
    assert 0 < most <= limit


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    code = (
        "import sys, itertools; from dist_loader.remote.local_copy import LocalCopy\n"
        "copy = LocalCopy(sys.argv[1], 10**8, lambda a: (a.encode() * 10**6)[:10**6]); print('go', flush=True)\n"
        "for n in itertools.count(): copy.read(f's3://bucket/{n % 50}-{sys.argv[2]}.jpg')\n"
    )
    for number in range(3):
        command = [sys.executable, "-c", code, str(tmp_path), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
    copy = LocalCopy(tmp_path, 10**8, lambda a: (a.encode() * 10**6)[: 10**6])
    for number in range(3):
        for n in range(50):
            address = f"s3://bucket/{n}-{number}.jpg"
            assert copy.read(address) == (address.encode() * 10**6)[: 10**6]
    assert held_bytes(tmp_path) <= 10**8


def test_who_finds_the_count_locked_reads_all_the_same(tmp_path: Path) -> None:
    import fcntl

    copy = LocalCopy(tmp_path, 10**6, Remote().fetch)
    with (tmp_path / "dist_loader-files-1" / "count").open("r+b") as count:
        fcntl.flock(count, fcntl.LOCK_EX)
        start = time.monotonic()
        assert copy.read(addresses(1)[0]) == content(addresses(1)[0])
        assert time.monotonic() - start < 2
    assert kept(tmp_path) == []


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_keeps_nothing_is_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(ConfigError, match="local_copy"):
        LocalCopy(tmp_path, limit, Remote().fetch)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="local_copy"):
        LocalCopy(tmp_path / "file", 10, Remote().fetch)
