"""An index in a file: the same samples again, opened by memory map, and never half of one."""

import json
import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.index import Index
from tests.test_index import build


def paths(index):
    return [index.path(i) for i in range(len(index))]


def is_mapped(array):
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return isinstance(getattr(array, "obj", array), mmap.mmap)


@pytest.fixture
def saved(tmp_path):
    index = build([f"a/{i}.jpg" for i in range(1000)], labels=[i % 3 for i in range(1000)])
    index.save(tmp_path / "photos.index")
    return tmp_path / "photos.index"


class TestSaveAndOpen:
    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(names=st.lists(st.binary(max_size=12), max_size=40), classes=st.lists(st.binary(min_size=1), max_size=4))
    def test_what_is_opened_is_what_was_saved(self, tmp_path, names, classes):
        index = build(names, labels=[i % 3 for i in range(len(names))], classes=map(os.fsdecode, classes))
        index.save(tmp_path / "i")
        again = Index.open(tmp_path / "i")
        assert paths(again) == paths(index)
        assert again.labels.tolist() == index.labels.tolist()
        assert (again.classes, again.root, again.fingerprint) == (index.classes, index.root, index.fingerprint)

    def test_the_fingerprint_in_the_file_is_that_of_the_samples(self, saved):
        opened = Index.open(saved)
        assert opened.take(range(len(opened))).fingerprint == opened.fingerprint

    def test_the_arrays_are_mapped_and_cannot_be_changed(self, saved):
        index = Index.open(saved)
        for array in (index.labels, index.buffer, index.offsets):
            assert is_mapped(array)
            assert array.flags.aligned
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0

    def test_what_is_asked_for_at_random_does_not_pile_up_in_memory(self, tmp_path, monkeypatch):
        monkeypatch.setattr("dist_loader.index.index._MOST_LABELS_MAPPED", 4 << 20)
        samples, name = 4_000_000, b"a/12345678.jpg"
        offsets = np.arange(samples + 1, dtype=np.int64) * len(name)
        names = np.resize(np.frombuffer(name, np.uint8), samples * len(name))
        Index("/photos", ("a",), np.arange(samples, dtype=np.int32), names, offsets).save(tmp_path / "large.index")
        index = Index.open(tmp_path / "large.index")
        numbers = np.random.default_rng(0).integers(0, samples, 10_000)
        np.testing.assert_array_equal(index.labels_of[numbers], numbers)
        for number in numbers.tolist():
            assert index.path(number) == "/photos/a/12345678.jpg"
        text = Path("/proc/self/smaps").read_text()
        resident = int(text.split(str(tmp_path / "large.index"))[1].split("Rss:")[1].split()[0])  # kB
        assert resident < 8_000, "of 16 MB of labels and 90 MB of paths"

    def test_a_file_cut_off_while_it_is_open_is_an_error_that_names_it(self, saved):
        index = Index.open(saved)
        os.truncate(saved, 4000)
        with pytest.raises(ConfigError, match=r"photos.index' was cut off while it was in use"):
            index.path(999)

    def test_another_root(self, saved, tmp_path):
        index = Index.open(saved, root=tmp_path / "mounted")
        assert index.path(1) == f"{tmp_path}/mounted/a/1.jpg"
        assert index.fingerprint == Index.open(saved).fingerprint

    def test_folders_are_made_and_files_replaced(self, tmp_path):
        file = tmp_path / "deep/er/photos.index"
        build(["a/1"]).save(file)
        old = Index.open(file)
        build(["a/2", "a/3"]).save(file)
        assert paths(Index.open(file)) == ["/data/a/2", "/data/a/3"]
        assert paths(old) == ["/data/a/1"]  # who has it open keeps what there was
        assert [each.name for each in file.parent.iterdir()] == [file.name]

    def test_new_files_can_be_read_like_any_other(self, saved):
        (saved.parent / "other").touch()
        assert saved.stat().st_mode == (saved.parent / "other").stat().st_mode

    def test_the_format_is_what_it_says(self, saved):
        # By the description of safetensors, and nothing of ours.
        data = saved.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        assert all(isinstance(value, str) for value in header.pop("__metadata__").values())
        labels = header["labels"]
        start, stop = (8 + length + at for at in labels["data_offsets"])
        assert labels["dtype"] == "I32"
        assert np.frombuffer(data[start:stop], "<i4").tolist() == Index.open(saved).labels.tolist()
        assert max(each["data_offsets"][1] for each in header.values()) == len(data) - 8 - length

    def test_opening_reads_next_to_nothing_of_it(self, tmp_path):
        samples = 200_000_000  # with empty paths and label 0, all in holes of the file
        build([]).save(tmp_path / "huge")
        length = int.from_bytes((tmp_path / "huge").read_bytes()[:8], "little")
        header = json.loads((tmp_path / "huge").read_bytes()[8 : 8 + length])
        first, second = 8 * (samples + 1), 12 * samples + 8
        header["offsets"] |= {"shape": [samples + 1], "data_offsets": [0, first]}
        header["labels"] |= {"shape": [samples], "data_offsets": [first, second]}
        header["paths"] |= {"data_offsets": [second, second]}
        ours = header["__metadata__"]["dist_loader.index"]
        header["__metadata__"]["dist_loader.index"] = ours.replace('"samples": 0', f'"samples": {samples}')
        text = json.dumps(header).encode()
        text += b" " * (-(8 + len(text)) % 64)
        (tmp_path / "huge").write_bytes(len(text).to_bytes(8, "little") + text)
        os.truncate(tmp_path / "huge", 8 + len(text) + second)
        before = resident_bytes()
        index = Index.open(tmp_path / "huge")
        assert len(index) == samples
        assert len(index.fingerprint) == 32
        assert index.path(samples - 1) == "/data/"
        assert resident_bytes() - before < 20_000_000


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class TestBadFiles:
    def fails(self, file, *words):
        with pytest.raises(ConfigError) as error:
            Index.open(file)
        for word in (str(file), *words):
            assert word in str(error.value)
        assert "\n" not in str(error.value)

    def test_missing(self, tmp_path):
        self.fails(tmp_path / "nowhere", "does not exist", "save")

    def test_a_folder(self, tmp_path):
        self.fails(tmp_path, "Is a directory")

    @pytest.mark.parametrize("content", [b"", b"a", b"\x89PNG\r\n\x1a\n" * 100, bytes(1000), b"\xff" * 1000])
    def test_foreign(self, tmp_path, content):
        (tmp_path / "photo").write_bytes(content)
        self.fails(tmp_path / "photo", "make it again")

    def test_other_safetensors(self, tmp_path):
        for number, header in enumerate(({}, {"__metadata__": {"format": "pt"}}, [], {"__metadata__": 1})):
            text = json.dumps(header).encode()
            (tmp_path / str(number)).write_bytes(len(text).to_bytes(8, "little") + text)
            self.fails(tmp_path / str(number), "make it again")

    def test_cut_off_anywhere(self, saved):
        data = saved.read_bytes()
        for length in (*range(0, 700, 7), *range(700, len(data), 997), len(data) - 1):
            saved.write_bytes(data[:length])
            self.fails(saved, "make it again")

    def test_too_long(self, saved):
        with saved.open("ab") as file:
            file.write(b"more")
        self.fails(saved, "bytes long")

    def test_a_damaged_header_is_an_error_or_harmless(self, saved):
        data = bytearray(saved.read_bytes())
        labels = Index.open(saved).labels.tolist()
        length = 8 + int.from_bytes(data[:8], "little")
        for at in (*range(8), *range(8, length, 3)):
            before = data[at]
            data[at] = 0xFF if at % 2 else before ^ 1
            saved.write_bytes(data)
            data[at] = before
            try:
                opened = Index.open(saved)
            except ConfigError as error:
                assert "\n" not in str(error)
            else:  # a letter of the root, of a class or of the fingerprint
                assert opened.labels.tolist() == labels

    def test_another_version(self, saved):
        saved.write_bytes(saved.read_bytes().replace(b'"version": "1"', b'"version": "2"'))
        self.fails(saved, "version 2", "make it again")

    def test_a_disk_that_is_full_or_closed(self, tmp_path, saved):
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="cannot write index"):
            Index.open(saved).save(tmp_path / "file/photos.index")

    def test_a_failed_save_leaves_the_old_file_and_nothing_else(self, saved, monkeypatch):
        def full(*_):
            raise OSError(28, "No space left on device")

        before = saved.read_bytes()
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match="No space left"):
            build(["a/1"]).save(saved)
        assert saved.read_bytes() == before
        assert os.listdir(saved.parent) == [saved.name]  # noqa: PTH208


class TestSplitCache:
    def test_is_the_same_split_from_mapped_memory(self, tmp_path):
        index = build([f"a/{i}" for i in range(5000)], labels=[i * 7 % 3 for i in range(5000)])
        expected = index.split(0.3, seed=5)
        for _ in ("made", "opened"):
            parts = index.split(0.3, seed=5, cache=tmp_path)
            for part, same in zip(parts, expected, strict=True):
                assert paths(part) == paths(same)
                assert part.labels.tolist() == same.labels.tolist()
                assert part.fingerprint == same.fingerprint == part.take(range(len(part))).fingerprint
                assert is_mapped(part.buffer)

    def test_is_made_once(self, tmp_path, monkeypatch):
        index = build([f"a/{i}" for i in range(100)])
        index.split(0.3, cache=tmp_path)
        monkeypatch.setattr("dist_loader.index.selection.held_out", None)
        index.split(0.3, cache=tmp_path)

    def test_anything_else_is_another_split(self, tmp_path):
        one = build([f"a/{i}" for i in range(100)])
        other = build([f"a/{i + 1}" for i in range(100)])
        mounted = build([f"a/{i}" for i in range(100)], root="/mnt")
        for index in (one, other, mounted):
            for fraction in (0.1, 0.2):
                for seed in (0, 1, 2**80):
                    cached = index.split(fraction, seed, cache=tmp_path)
                    assert [paths(part) for part in cached] == [paths(part) for part in index.split(fraction, seed)]

    @pytest.mark.parametrize("which", ["rest", "held-out"])
    def test_damaged_parts_are_made_again(self, tmp_path, which):
        index = build([f"a/{i}" for i in range(100)])
        expected = [paths(part) for part in index.split(0.3, cache=tmp_path)]
        (file,) = tmp_path.glob(f"*.{which}.index")
        file.write_bytes(file.read_bytes()[:-1])
        assert [paths(part) for part in index.split(0.3, cache=tmp_path)] == expected
