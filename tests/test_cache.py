"""The cache of decoded samples: the same pixels as without it, whatever becomes of its file, its disk, its writers."""

import errno
import logging
import os
import random
import shutil
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

import dist_loader.cache.entries as entries
from dist_loader.cache.layout import HEADER
from dist_loader.errors import ConfigError, SampleError
from dist_loader.index import Index
from dist_loader.readers.cached import CachedReader
from dist_loader.readers.image import ImageReader
from dist_loader.readers.source import Source
from tests.readers.support import pixels, read

SAMPLES, SIZE = 12, (16, 24)


class Counting:
    """A reader that notes what it is asked for."""

    def __init__(self, reader):
        self.reader, self.numbers = reader, []

    def __getattr__(self, name):
        return getattr(self.reader, name)

    def read(self, numbers, epoch, out):
        self.numbers += numbers.tolist()
        return self.reader.read(numbers, epoch, out)


@pytest.fixture
def root(tmp_path):
    for number in range(SAMPLES):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(seed=number)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def make(root, tmp_path):
    """Makes (cached reader, what its reader was asked for), as a new process would; all share one folder."""

    def make(limit=None, folder=tmp_path / "cache", **how):
        counting = Counting(ImageReader(Index.from_directory(root), how.pop("size", SIZE), **how))
        return CachedReader(counting, folder, limit), counting.numbers

    return make


def plain(root, size=SIZE, **how):
    """All samples, read without a cache."""
    return read(ImageReader(Index.from_directory(root), size, **how), range(SAMPLES))


def file_of(reader):
    assert reader.cache.path.is_file()
    return reader.cache.path


# ------------------------------------------------------------------------------------------------------- what is read


def test_what_was_read_once_is_not_decoded_again(make, root):
    reader, decoded = make()
    assert (reader.shape, reader.dtype) == ((*SIZE, 3), np.uint8)
    for epoch in range(3):
        np.testing.assert_array_equal(read(reader, range(SAMPLES), epoch), plain(root))
    assert decoded == list(range(SAMPLES))
    again, decoded = make()
    order = [3, 3, 0, 11, 7]
    np.testing.assert_array_equal(read(again, order), plain(root)[order])
    assert decoded == []
    assert again.name(3) == ImageReader(Index.from_directory(root), SIZE).name(3)


@pytest.mark.parametrize("size", [SIZE, (30, 47), (80, 90)], ids=["of a third of a block", "of a block", "of blocks"])
def test_what_is_missing_in_a_batch_is_decoded_alone(size, make, root):
    read(make(size=size)[0], [1, 4, 5, 9])
    reader, decoded = make(size=size)
    np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root, size))
    assert decoded == [0, 2, 3, 6, 7, 8, 10, 11]
    again, decoded = make(size=size)
    np.testing.assert_array_equal(read(again, range(SAMPLES)), plain(root, size))
    assert decoded == []


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_sequence_serves_the_same_batches_on_any_number_of_ranks(world_size, shuffle, root, tmp_path, threads):
    from dist_loader.sequence.image import ImageSequence
    from dist_loader.world import World

    def batches(cache):
        index, ranks = Index.from_directory(root), range(world_size)
        worlds = [World(rank, world_size, rank, world_size) for rank in ranks]
        sequences = [
            ImageSequence(index, SIZE, 2, 8, world=world, shuffle=shuffle, seed=1, threads=2, cache=cache)
            for world in worlds
        ]
        for epoch in range(3):
            for sequence in sequences:
                sequence.epoch = epoch
                yield from (np.array(part) for batch in sequence for part in batch)
        for sequence in sequences:
            sequence.close()

    for got, wanted in zip(batches(tmp_path / "cache"), batches(None), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_threads_and_readers_that_share_a_cache_get_the_right_pixels(make, root):
    wanted = plain(root)
    readers = [make()[0] for _ in range(3)]
    wrong = []

    def work(reader, seed):
        numbers = np.random.default_rng(seed).integers(0, SAMPLES, (20, 6))
        wrong.extend(some for some in numbers if (read(reader, some) != wanted[some]).any())

    workers = [threading.Thread(target=work, args=(readers[n % 3], n)) for n in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert wrong == []


# ------------------------------------------------------------------------------------- what makes another set of pixels


@pytest.mark.parametrize("how", ["in place", "renamed over", "same length and mtime"])
def test_a_replaced_file_is_read_again(how, make, root):
    reader, _ = make()
    read(reader, range(SAMPLES))
    path = Path(reader.name(5))
    before = path.stat()
    new = path.with_name("new.tmp")
    Image.fromarray(pixels(seed=99)).save(new, "bmp")
    if how == "in place":
        path.write_bytes(new.read_bytes())
    else:
        new.replace(path)
    if how == "same length and mtime":
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size
    new.unlink(missing_ok=True)
    for wanted in ([5], []):
        again, decoded = make()
        np.testing.assert_array_equal(read(again, range(SAMPLES)), plain(root))
        assert decoded == wanted


def test_a_training_shows_the_same_pixels_to_its_end_and_asks_no_more_of_the_files(make, root):
    first, _ = make()
    read(first, range(SAMPLES))
    reader, decoded = make()
    before = read(reader, range(SAMPLES))
    shutil.rmtree(root)
    for one in (first, reader):
        np.testing.assert_array_equal(read(one, range(SAMPLES)), before)
    assert decoded == []


def test_whatever_changes_the_pixels_makes_another_cache(make, root, tmp_path):
    ways = [
        {},
        {"size": (24, 16)},
        {"color": "grayscale"},
        {"resize": "nearest"},
        {"resize": "area"},
        {"crop": "center"},
    ]
    for _ in range(2):
        for way in ways:
            np.testing.assert_array_equal(read(make(**way)[0], range(SAMPLES)), plain(root, **way))
    assert len(list((tmp_path / "cache").glob("*.samples"))) == len(ways)
    (root / "b" / "99.bmp").write_bytes((root / "b" / "11.bmp").read_bytes())  # another index
    assert make()[0].cache.path not in {make(**way)[0].cache.path for way in ways[1:]}
    assert len(list((tmp_path / "cache").glob("*.samples"))) == 2 * len(ways)


def test_a_folder_of_the_same_names_has_its_own_cache(make, root, tmp_path):
    read(make()[0], range(SAMPLES))
    other = tmp_path / "other"
    shutil.copytree(root, other)
    reader = CachedReader(ImageReader(Index.from_directory(other), SIZE), tmp_path / "cache")
    assert reader.cache.path != make()[0].cache.path


def test_what_pillow_is_told_about_truncated_files_makes_another_cache(make, root, monkeypatch):
    path = Path(make()[0].name(4)).with_suffix(".png")
    Image.fromarray(pixels(seed=4)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    number = [Path(make()[0].name(n)) for n in range(SAMPLES + 1)].index(path)
    with monkeypatch.context() as patched:
        patched.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        read(make()[0], [number])
    with pytest.raises(SampleError, match="truncated"):
        read(make()[0], [number])


def test_another_version_of_a_decoder_makes_another_cache(make, monkeypatch):
    from dist_loader.readers import image

    first = make()[0].cache.path
    image._decoders.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(image.cv2, "__version__", "99")
        assert make()[0].cache.path != first
    image._decoders.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(image.features, "version", lambda _: "99")  # of a library that Pillow decodes with
        assert make()[0].cache.path != first
    image._decoders.cache_clear()
    assert make()[0].cache.path == first


def test_samples_of_remote_files_are_kept_and_their_credentials_are_not(root, tmp_path):
    there, fetched = "s3://user:secret@bucket/photos", []

    def fetch(address):
        fetched.append(address)
        return (root / address.removeprefix(there + "/")).read_bytes()

    index = replace(Index.from_directory(root), root=there)
    for _ in range(2):
        reader = CachedReader(ImageReader(index, SIZE, source=Source(fetch)), tmp_path / "cache")
        np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    assert len(fetched) == SAMPLES
    assert b"secret" not in file_of(reader).read_bytes()


def test_random_crops_are_refused(make):
    with pytest.raises(ConfigError, match="other pixels in every epoch"):
        make(crop="random-resized")


# --------------------------------------------------------------------------------------------------------- broken files


def test_a_broken_image_is_an_error_every_time_and_never_kept(make, root):
    path = Path(make()[0].name(4))
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    reader, decoded = make()
    for _ in range(2):
        with pytest.raises(SampleError) as caught:
            read(reader, [4])
        assert caught.value.path == str(path)
    assert decoded == [4, 4]
    path.write_bytes(whole)
    np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    again, _ = make()
    path.unlink()
    with pytest.raises(SampleError, match="No such file"):
        read(again, [4])


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def test_damaged_entries_are_read_again(make, root):
    rng = random.Random(0)
    reader, _ = make()
    read(reader, range(SAMPLES))
    slot = reader.cache.contents.slot
    for part in (range(16), range(64, 64 + 16 * 24 * 3), range(slot - 64, slot - 48)):
        for number in (0, 5, SAMPLES - 1):
            flip(file_of(reader), HEADER + number * slot + rng.choice(part))
        again, decoded = make()
        np.testing.assert_array_equal(read(again, range(SAMPLES)), plain(root))
        assert decoded == [0, 5, SAMPLES - 1]
        healed, decoded = make()
        np.testing.assert_array_equal(read(healed, range(SAMPLES)), plain(root))
        assert decoded == []


@pytest.mark.parametrize("damage", ["header", "garbage", "empty", "short", "cut", "lost pages"])
def test_a_damaged_file_is_no_hindrance(damage, make, root):
    first, _ = make()
    read(first, range(SAMPLES))
    path = file_of(first)
    length = path.stat().st_size
    if damage == "header":
        flip(path, 30)
    elif damage == "lost pages":  # as after a crash of the host
        with path.open("r+b") as file:
            file.seek(8192)
            file.write(bytes(4096))
    elif damage == "cut":
        os.truncate(path, length // 2)
    else:
        path.write_bytes({"garbage": os.urandom(length), "empty": b"", "short": b"dist_loader"}[damage])
    for _ in range(2):
        np.testing.assert_array_equal(read(first, range(SAMPLES)), plain(root)) if damage != "lost pages" else None
        reader, decoded = make()
        np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    assert decoded == []
    assert path.stat().st_size == length


def test_a_file_cut_off_under_a_running_reader_is_no_hindrance(make, root):
    reader, _ = make()
    read(reader, range(SAMPLES))
    os.truncate(file_of(reader), 5000)
    np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    shutil.rmtree(file_of(reader).parent)
    np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))


def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cache folder '.*file/below'.*Not a directory"):
        make(folder=tmp_path / "file" / "below")
    name = make()[0].cache.path.name
    (tmp_path / "taken" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match="is no file; remove it"):
        make(folder=tmp_path / "taken")


@pytest.mark.parametrize("folder", ["", "s3://bucket/cache", "cut\0off", 5])
def test_what_is_no_folder_of_this_machine_is_refused(folder, root, tmp_path, monkeypatch):
    from dist_loader.sequence.image import ImageSequence

    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="cache must be a folder"):
        ImageSequence(Index.from_directory(root), SIZE, 2, cache=folder)
    with pytest.raises(ConfigError, match="cache must be a folder"):
        Index.from_directory(root, cache=folder)
    with pytest.raises(ConfigError, match="cache must be a folder"):
        Index.from_directory(root).split(0.5, cache=folder)
    assert sorted(tmp_path.iterdir()) == before


# ----------------------------------------------------------------------------------------------------- killed writers

KILLED = """
    import os, random, signal, sys, time
    import numpy as np
    from dist_loader.cache import STATE_BYTES, Cache, Contents

    ENTRIES, LENGTH, STATES = 3, 1_000_003, 4
    folder, rounds = sys.argv[1], int(sys.argv[2])
    contents = Contents("test", ENTRIES, LENGTH)
    state = [bytes([1 + n]) * STATE_BYTES for n in range(STATES)]
    sample = [[np.random.default_rng([n, s]).integers(0, 256, LENGTH, np.uint8) for s in range(STATES)]
              for n in range(ENTRIES)]
    random.seed(7)

    def write_for_ever(seed):
        order, cache = random.Random(seed), Cache(folder, contents)
        os.write(ready, b".")
        while os.getppid() == driver:
            number, of = order.randrange(ENTRIES), order.randrange(STATES)
            cache.write(number, state[of], memoryview(sample[number][of]))
        os._exit(1)

    def check(cache):
        found, out = 0, np.empty(LENGTH, np.uint8)
        for number in range(ENTRIES):
            for of in range(STATES):
                if cache.read(number, state[of], memoryview(out)):
                    found += 1
                    assert np.array_equal(out, sample[number][of]), (number, of)
        return found

    driver = os.getpid()
    found = torn = 0
    old = Cache(folder, contents)
    for n in range(rounds):
        wait, ready = os.pipe()
        writers = []
        for m in range(2):  # two at once, at the same entries
            pid = os.fork()
            if pid == 0:
                write_for_ever(2 * n + m)
            writers.append(pid)
        os.close(ready)
        try:
            assert os.read(wait, 1) + os.read(wait, 1) == b".."
            end = time.monotonic() + 0.02 + 0.03 * random.random()
            while time.monotonic() < end:
                check(old)  # while they write
        finally:
            for pid in writers:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        os.close(wait)
        seen = check(Cache(folder, contents))
        assert check(old) == seen
        found, torn = found + seen, torn + ENTRIES - seen
    for number in range(ENTRIES):  # no lock is left behind
        old.write(number, state[0], memoryview(sample[number][0]))
    assert check(Cache(folder, contents)) == ENTRIES
    print(found, torn)
"""


def test_killed_writers_leave_whole_entries_or_none(tmp_path):
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "cache"), "15"]
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, torn = map(int, done.stdout.split())
    assert found, "nothing was ever whole: this has tested nothing"
    assert torn, "nobody was killed while writing: this has tested nothing"


# ------------------------------------------------------------------------------------------------------------- its size


def taken(folder):
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def slots(count):
    """A limit that has room for so many samples."""
    return (HEADER + count * (128 + 16 * 24 * 3)) * 256 // 255 + 2


def test_it_keeps_to_its_bytes(make, root, tmp_path, caplog):
    limit = slots(5)
    reader, decoded = make(limit=limit)
    assert "room for 5 of 12 samples" in caplog.text
    for _ in range(2):
        np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    assert decoded == [*range(SAMPLES), *range(5, SAMPLES)]
    assert taken(tmp_path / "cache") <= -(-limit // 4096) * 4096
    read(make(limit="1MB")[0], range(SAMPLES))  # with more room, what is there stays
    wider, decoded = make(limit=slots(7))
    read(wider, range(SAMPLES))
    assert decoded == list(range(7, SAMPLES))


def test_others_make_room_unless_they_are_in_use(make, tmp_path):
    folder, limit = tmp_path / "cache", slots(2 * SAMPLES) + 2 * HEADER
    files = []
    for resize in ("nearest", "area"):
        reader, _ = make(limit=limit, resize=resize)
        read(reader, range(SAMPLES))
        files.append(reader.cache.path)
        os.utime(files[-1], (len(files), len(files)))
    kept, _ = make(limit=limit, resize="nearest")  # used last, and still
    del reader
    third, _ = make(limit=limit)
    assert {path.name for path in folder.glob("*.samples")} == {files[0].name, third.cache.path.name}
    fourth, _ = make(limit=limit, color="grayscale")  # nothing left
    assert (kept.cache.held, third.cache.held, fourth.cache.held) == (SAMPLES, SAMPLES, 0)
    read(fourth, range(SAMPLES))


def test_what_is_not_of_a_cache_is_never_deleted(make, tmp_path):
    other = tmp_path / "cache" / "measurements.samples"
    other.parent.mkdir()
    other.write_bytes(bytes(10 * slots(SAMPLES)))
    reader, _ = make(limit=slots(SAMPLES))
    assert other.stat().st_size == 10 * slots(SAMPLES)
    assert reader.cache.held == SAMPLES


def test_a_file_system_that_takes_no_file_so_long_gets_a_shorter_one(root, tmp_path):
    reading = f"""
        import numpy as np, resource
        from dist_loader import Index
        from dist_loader.readers.cached import CachedReader
        from dist_loader.readers.image import ImageReader
        resource.setrlimit(resource.RLIMIT_FSIZE, ({slots(SAMPLES) // 2}, {slots(SAMPLES) // 2}))
        reader = CachedReader(ImageReader(Index.from_directory({str(root)!r}), {SIZE!r}), {str(tmp_path / "cache")!r})
        assert 0 < reader.cache.held < {SAMPLES}
        out = np.empty(({SAMPLES}, *reader.shape), np.uint8)
        for _ in range(2):
            reader.read(np.arange({SAMPLES}), 0, out)
        """
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", textwrap.dedent(reading)]
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "the file system has room for" in done.stderr


@pytest.mark.parametrize("limit", [100, "2kB", 0, -5, True, 1.5, "much"])
def test_a_limit_that_makes_no_sense_is_refused(limit, make):
    with pytest.raises(ConfigError, match="cache_bytes|not a size"):
        make(limit=limit)


def test_a_limit_without_a_cache_is_refused(root):
    from dist_loader.sequence.image import ImageSequence

    with pytest.raises(ConfigError, match="cache_bytes='1GiB' without cache"):
        ImageSequence(Index.from_directory(root), SIZE, 2, cache_bytes="1GiB")


def one_warning(caplog):
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    return record.getMessage()


def test_a_disk_that_is_nearly_full_is_left_alone(make, root, caplog, monkeypatch):
    reader, decoded = make()
    read(reader, range(3))
    real = os.fstatvfs(reader.cache._fd)
    few = list(real)
    few[4] = int(real.f_blocks * 0.0499)  # f_bavail
    monkeypatch.setattr(entries.os, "fstatvfs", lambda fd: os.statvfs_result(few))
    for _ in range(2):
        np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    assert decoded == [*range(SAMPLES), *range(3, SAMPLES)]
    assert "less than 5% of the disk is free" in one_warning(caplog)


def test_a_write_that_fails_in_its_middle_costs_one_warning(make, root, caplog, monkeypatch):
    reader, decoded = make()
    real, calls = os.pwrite, []

    def full(fd, data, at):
        calls.append(at)
        if len(calls) == 15:
            return real(fd, data[:100], at)
        if len(calls) > 15:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data, at)

    monkeypatch.setattr("dist_loader.cache.files.os.pwrite", full)
    for _ in range(2):
        np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
    assert decoded == [*range(SAMPLES), *range(3, SAMPLES)]
    assert "No space left on device" in one_warning(caplog)
    monkeypatch.undo()
    np.testing.assert_array_equal(read(make()[0], range(SAMPLES)), plain(root))


@pytest.mark.parametrize("share", [0.05, -1])
def test_a_disk_that_is_really_full(share, make, root, tmp_path, caplog, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    monkeypatch.setattr(entries, "FREE_SHARE", share)  # -1: look at nothing before writing
    try:
        reader, decoded = make(folder=disk / "cache")
        for _ in range(2):
            np.testing.assert_array_equal(read(reader, range(SAMPLES)), plain(root))
        assert SAMPLES < len(decoded) < 2 * SAMPLES
        assert ("No space left" if share < 0 else "of the disk is free") in one_warning(caplog)
        np.testing.assert_array_equal(read(make(folder=disk / "cache")[0], range(SAMPLES)), plain(root))
    finally:
        del reader
        subprocess.run(["umount", "-l", str(disk)], check=True)
