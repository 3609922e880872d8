"""A cached index: the same as a fresh one whatever happened to the folder, made once, by one process."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from dist_loader.errors import ConfigError, ReadTimeout
from dist_loader.index import Index
from tests.test_index import make, relative
from tests.test_index_file import is_mapped


@pytest.fixture
def root(tmp_path):
    make(tmp_path / "photos", *(f"{c}/{i}.jpg" for c in "abc" for i in range(5)), "a/more/x.png", "b/2.npy")
    make(tmp_path / "elsewhere", "linked/1.jpg")
    (tmp_path / "photos/c/link").symlink_to(tmp_path / "elsewhere/linked")
    settle(tmp_path)
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def settle(folder):
    """Make all folders look as if they had been changed last a minute ago."""
    for each in (folder, *folder.rglob("*")):
        if each.is_dir() and not each.is_symlink():
            os.utime(each, (time.time() - 60,) * 2)


@pytest.fixture
def no_listing(monkeypatch):
    """Called, it makes every listing of a folder fail."""

    def forbid():
        def scandir(path):
            raise AssertionError(f"{path} was listed")

        monkeypatch.setattr(os, "scandir", scandir)

    return forbid


def same(one, other):
    return (one.fingerprint, relative(one), one.root) == (other.fingerprint, relative(other), other.root)


class TestServed:
    def test_an_unchanged_tree_is_not_listed_again(self, root, cache, no_listing):
        fresh = Index.from_directory(root)
        made = Index.from_directory(root, cache=cache)
        no_listing()
        opened = Index.from_directory(root, cache=cache)
        for index in (made, opened):
            assert same(index, fresh)
            assert index.classes == fresh.classes
            assert index.labels.tolist() == fresh.labels.tolist()
            assert is_mapped(index.labels)
            assert is_mapped(index.buffer)
            assert is_mapped(index.offsets)

    def test_what_files_contain_plays_no_part(self, root, cache, no_listing):
        Index.from_directory(root, cache=cache)
        (root / "a/1.jpg").write_bytes(b"other pixels")
        no_listing()
        Index.from_directory(root, cache=cache)

    def test_the_file_opens_as_any_index(self, root, cache):
        made = Index.from_directory(root, cache=cache)
        (file,) = cache.glob("photos-*.index")
        assert same(Index.open(file), made)

    def test_relative_roots_and_other_spellings_of_suffixes_are_the_same(self, root, cache, no_listing, monkeypatch):
        Index.from_directory(root, [".jpg", "PNG"], cache=cache)
        monkeypatch.chdir(root.parent)
        no_listing()
        Index.from_directory("photos", ("png", ".JPG", ".jpg"), cache=cache)

    def test_a_tree_changed_just_now_is_not_trusted(self, root, cache, monkeypatch):
        # As on a file system whose clock ticks every two seconds: the second change does not show.
        make(root, "a/new1.jpg")
        Index.from_directory(root, cache=cache)
        before = (root / "a").stat()
        make(root, "a/new2.jpg")
        stat = os.stat

        def coarse(path, *args, **kwargs):
            status = stat(path, *args, **kwargs)
            return before if os.path.samestat(status, before) else status

        monkeypatch.setattr(os, "stat", coarse)
        assert "a/new2.jpg" in relative(Index.from_directory(root, cache=cache))


CHANGES = {
    "file added": lambda root: make(root, "b/new.jpg"),
    "file removed": lambda root: (root / "b/1.jpg").unlink(),
    "file renamed": lambda root: (root / "b/1.jpg").rename(root / "b/9.jpg"),
    "file moved": lambda root: (root / "b/1.jpg").rename(root / "c/9.jpg"),
    "deep file added": lambda root: make(root, "a/more/new.png"),
    "class added": lambda root: make(root, "d/1.jpg"),
    "empty class added": lambda root: make(root, "d/"),
    "class removed": lambda root: shutil.rmtree(root / "b"),
    "class renamed": lambda root: (root / "b").rename(root / "z"),
    "nested folder": lambda root: make(root, "b/new/1.jpg"),
    "nested folder removed": lambda root: shutil.rmtree(root / "a/more"),
    "file behind a link": lambda root: make(root.parent, "elsewhere/linked/new.jpg"),
    "link removed": lambda root: (root / "c/link").unlink(),
    "link to a folder": lambda root: (root / "a/link").symlink_to(root.parent / "elsewhere"),
    "target replaced": lambda root: replaced(root.parent / "elsewhere/linked", "2.jpg"),
    "folder replaced": lambda root: replaced(root / "b", "1.jpg"),
    "root replaced": lambda root: replaced(root, "a/1.jpg"),
    "a time set back": lambda root: with_its_time(root / "b", lambda: make(root, "b/new.jpg")),
}


def replaced(folder, *names):
    """Another folder in the place of one, with the same time."""
    times = folder.stat()
    folder.rename(folder.with_name("." + folder.name))
    make(folder, *names)
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))
    os.utime(folder.parent, (time.time() - 60,) * 2)


def with_its_time(folder, change):
    times = folder.stat()
    change()
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))


class TestMadeAnew:
    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
    def test_after(self, root, cache, change):
        before = Index.from_directory(root, cache=cache)
        change(root)
        after = Index.from_directory(root, cache=cache)
        assert same(after, Index.from_directory(root))
        assert relative(after) != relative(before) or after.classes != before.classes

    @pytest.mark.parametrize(
        "asked",
        [
            {},
            {"suffixes": [".npy"]},
            {"classes": ["c", "b", "a"]},
            {"classes": ["a", "b", "c"]},
            {"classes": [*"abcd"]},
        ],
        ids=str,
    )
    def test_for_what_else_was_asked_for(self, root, cache, asked):
        Index.from_directory(root, [".jpg"], cache=cache)
        for _ in range(2):
            index = Index.from_directory(root, cache=cache, **asked)
            fresh = Index.from_directory(root, **asked)
            assert same(index, fresh)
            assert index.classes == fresh.classes
        assert len(Index.from_directory(root, [".jpg"], cache=cache)) == 16

    def test_for_another_root_of_that_name(self, root, cache, tmp_path):
        Index.from_directory(root, cache=cache)
        make(tmp_path / "other/photos", "a/1.jpg")
        other = Index.from_directory(tmp_path / "other/photos", cache=cache)
        assert same(other, Index.from_directory(tmp_path / "other/photos"))

    @pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"{" * len(data)])
    def test_after_damage(self, root, cache, damage, no_listing):
        Index.from_directory(root, cache=cache)
        (file,) = cache.glob("*.index")
        file.write_bytes(damage(file.read_bytes()))
        assert same(Index.from_directory(root, cache=cache), Index.from_directory(root))
        no_listing()
        Index.from_directory(root, cache=cache)

    def test_under_a_wrong_name_it_is_not_used(self, root, cache):
        Index.from_directory(root, [".npy"], cache=cache)
        (npy,) = cache.glob("*.index")
        Index.from_directory(root, cache=cache)
        (images,) = set(cache.glob("*.index")) - {npy}
        shutil.copy(npy, images)
        assert same(Index.from_directory(root, cache=cache), Index.from_directory(root))

    def test_errors_are_not_kept(self, root, cache):
        with pytest.raises(ConfigError, match=r"no images.*\.gif"):
            Index.from_directory(root, [".gif"], cache=cache)
        make(root, "a/1.gif")
        assert len(Index.from_directory(root, [".gif"], cache=cache)) == 1

    def test_a_cache_that_cannot_be_written(self, root, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="index cache"):
            Index.from_directory(root, cache=tmp_path / "file/cache")

    def test_a_cache_that_can_only_be_read_serves(self, root, cache):
        Index.from_directory(root, cache=cache)
        for file in cache.glob("*.lock"):
            file.unlink()
        cache.chmod(0o555)
        try:
            assert len(Index.from_directory(root, cache=cache)) == 17
        finally:
            cache.chmod(0o755)


PROCESS = """
import os, sys, time
from dist_loader.index import Index
root, cache, seconds, number, of = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
listed, scandir = [], os.scandir
def slow(path):
    if not os.fsencode(path).startswith(os.fsencode(root)): return scandir(path)
    listed.append(path)
    if len(listed) == 1: print("listing", flush=True); time.sleep(seconds)
    return scandir(path)
os.scandir = slow
open(f"{root}/.ready-{number}", "w")
while sum(name.startswith(".ready") for name in os.listdir(root)) < of: time.sleep(0.01)
print(len(listed) > 0, Index.from_directory(root, cache=cache, threads=2).fingerprint, len(listed) > 0)
"""


def start(root, cache, seconds, number=0, of=1):
    arguments = [sys.executable, "-c", PROCESS, root, cache, seconds, number, of]
    return subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, text=True)


class TestManyProcesses:
    def test_one_makes_it_and_all_have_it(self, root, cache):
        # The tree has just been changed: what one process made meanwhile is good enough for those who waited for it.
        ranks = [start(root, cache, 0.7, number, of=4) for number in range(4)]
        said = [rank.communicate(timeout=30)[0].split() for rank in ranks]
        fresh = Index.from_directory(root)
        assert all(words[-2] == fresh.fingerprint for words in said)
        assert sorted(words[-1] for words in said) == ["False", "False", "False", "True"]
        assert len(list(cache.glob("*.index"))) == 1

    def test_a_killed_maker_leaves_no_lock(self, root, cache):
        maker = start(root, cache, 60)
        assert maker.stdout.readline() == "listing\n"
        waiter = threading.Thread(target=Index.from_directory, args=(root,), kwargs={"cache": cache}, daemon=True)
        waiter.start()
        waiter.join(0.3)
        assert waiter.is_alive()
        os.kill(maker.pid, signal.SIGKILL)
        maker.communicate()
        waiter.join(10)
        assert not waiter.is_alive()
        assert len(list(cache.glob("*.index"))) == 1

    def test_what_a_killed_maker_left_half_written_is_removed(self, root, cache):
        Index.from_directory(root, cache=cache)
        (file,) = cache.glob("*.index")
        left_behind, being_written = (cache / f".{file.name}.{name}.part" for name in ("01234567", "89abcdef"))
        for each, hours in ((left_behind, 2), (being_written, 0)):
            each.write_bytes(b"half")
            os.utime(each, (time.time() - 3600 * hours,) * 2)
        make(root, "a/new.jpg")
        Index.from_directory(root, cache=cache)
        assert not left_behind.exists()
        assert being_written.exists()

    def test_waiting_for_a_maker_that_does_not_come_any_further_ends(self, root, cache, monkeypatch):
        Index.from_directory(root, cache=cache)
        make(root, "a/new.jpg")
        monkeypatch.setattr("dist_loader.index.cache._SECONDS_WITHOUT_A_WORD", 0.3)
        (lock,) = cache.glob("*.lock")
        with lock.open() as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            with pytest.raises(ReadTimeout, match=r"photos-.*\.index"):
                Index.from_directory(root, cache=cache)

    def test_a_file_system_without_locks_works(self, root, cache, monkeypatch):
        def refused(*_):
            raise OSError(37, "No locks available")

        monkeypatch.setattr(fcntl, "flock", refused)
        assert same(Index.from_directory(root, cache=cache), Index.from_directory(root))


class TestManyThreads:
    def test_order_does_not_depend_on_timing(self, tmp_path, monkeypatch):
        make(tmp_path, *(f"{c}/{d}/{i}.jpg" for c in "abc" for d in ("x", "x-y", "x/z", ".", "é") for i in range(2)))
        expected = relative(Index.from_directory(tmp_path, threads=1))
        assert expected == sorted(expected, key=os.fsencode)
        scandir, turn = os.scandir, iter(range(10**6))

        def delayed(path):
            time.sleep((0.02, 0.0, 0.005, 0.01)[next(turn) * 7 % 4])
            return scandir(path)

        monkeypatch.setattr(os, "scandir", delayed)
        for threads in (1, 2, 3, 16):
            assert relative(Index.from_directory(tmp_path, threads=threads)) == expected

    @pytest.mark.parametrize("threads", [1, 8])
    def test_of_several_errors_the_first_in_order_is_raised(self, tmp_path, monkeypatch, threads):
        make(tmp_path, *(f"{c}/{d}/1.jpg" for c in "abc" for d in "xyz"))
        scandir = os.scandir

        def closed(path):
            if path.endswith(b"a/y/"):
                time.sleep(0.1)  # the others fail first
            if path.endswith((b"a/y/", b"a/z/", b"b/", b"c/x/")):
                raise PermissionError(13, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", closed)
        with pytest.raises(ConfigError, match="cannot read folder.*a/y.*Permission denied"):
            Index.from_directory(tmp_path, threads=threads)

    def test_a_file_system_that_stops_to_answer_is_an_error_that_names_the_folder(self, tmp_path, monkeypatch):
        make(tmp_path, "a/1.jpg", "b/1.jpg")
        scandir, answer = os.scandir, threading.Event()

        def hangs(path):
            if path.endswith(b"b/"):
                answer.wait(30)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", hangs)
        monkeypatch.setattr("dist_loader.index.scan._SECONDS_WITHOUT_ANSWER", 0.1)
        try:
            with pytest.raises(ReadTimeout, match="no answer.*b/"):
                Index.from_directory(tmp_path)
        finally:
            answer.set()

    def test_threads_are_gone_afterwards(self, tmp_path):
        make(tmp_path, "a/1.jpg")
        Index.from_directory(tmp_path, threads=8)
        deadline = time.monotonic() + 5
        while any(thread.name.startswith("dist_loader-scan") for thread in threading.enumerate()):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    @pytest.mark.parametrize("threads", [0, -1, 1.5, True, "4"])
    def test_threads_must_be_a_number(self, tmp_path, threads):
        make(tmp_path, "a/1.jpg")
        with pytest.raises(ConfigError, match="threads"):
            Index.from_directory(tmp_path, threads=threads)


class TestProgress:
    @pytest.fixture
    def impatient(self, monkeypatch):
        monkeypatch.setattr("dist_loader.index.progress._SECONDS_OF_SILENCE", -1.0)

    def test_short_work_is_not_spoken_of(self, root, capfd):
        Index.from_directory(root)
        assert capfd.readouterr().err == ""

    def test_long_work_tells_how_far_it_is(self, root, capfd, impatient):
        Index.from_directory(root)
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert "indexing" in lines[0]
        assert str(root) in lines[0]
        assert "images in" in lines[0]

    def test_a_large_folder_is_told_of_before_it_is_listed_to_the_end(self, tmp_path, capfd, impatient, monkeypatch):
        make(tmp_path, *(f"a/{i}.jpg" for i in range(5000)))
        listed = os.scandir

        @contextmanager
        def slow_at_the_end(folder):
            def entries():
                with listed(folder) as found:
                    for count, entry in enumerate(found):
                        if count == 4500:
                            time.sleep(1.2)
                        yield entry

            yield entries()

        monkeypatch.setattr("os.scandir", slow_at_the_end)
        Index.from_directory(tmp_path, threads=1)
        assert "0 images in 0 folders, 4,096 names seen" in capfd.readouterr().err

    @pytest.mark.parametrize(("rank", "progress", "speaks"), [(0, None, 1), (1, None, 0), (1, True, 1), (0, False, 0)])
    def test_rank_0_speaks(self, root, cache, capfd, impatient, monkeypatch, rank, progress, speaks):
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", str(rank))
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        for asked in ({}, {"cache": cache}):
            Index.from_directory(root, progress=progress, **asked)
            assert len(capfd.readouterr().err.splitlines()) == speaks

    def test_rank_0_tells_what_another_process_makes(self, root, cache, capfd, impatient, monkeypatch):
        maker = start(root, cache, 1.0)
        assert maker.stdout.readline() == "listing\n"
        (lock,) = cache.glob("*.lock")
        lock.write_text("indexing '/far': 1,234 images in 5 folders (123)")
        Index.from_directory(root, cache=cache)
        maker.communicate()
        assert "1,234 images in 5 folders" in capfd.readouterr().err


def test_root_is_a_path_or_text(root, cache):
    assert same(Index.from_directory(str(root), cache=str(cache)), Index.from_directory(Path(root)))
