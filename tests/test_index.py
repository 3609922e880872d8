"""What samples exist: folders of every kind that people have, read the same way on every machine."""

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.index import IMAGE_SUFFIXES, Index


def make(root, *names):
    """Empty files at the given paths (str or bytes) below root; a name that ends with a slash is a folder."""
    for name in map(os.fsdecode, names):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return root


def relative(index):
    return [os.path.relpath(index.path(i), index.root) for i in range(len(index))]


def build(names, classes=("a", "b", "c"), labels=None, root="/data"):
    """An index without files."""
    encoded = [os.fsencode(name) for name in names]
    return Index(
        root=root,
        classes=tuple(classes),
        labels=np.array([0] * len(names) if labels is None else labels, dtype=np.int32),
        buffer=np.frombuffer(b"".join(encoded), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, encoded)], dtype=np.int64),
    )


class TestFromDirectory:
    def test_classes_labels_and_paths(self, tmp_path):
        make(tmp_path, "dog/2.jpg", "cat/1.png", "dog/1.jpg", "dog/old/9.webp")
        index = Index.from_directory(tmp_path)
        assert len(index) == 4
        assert index.classes == ("cat", "dog")
        assert index.labels.tolist() == [0, 1, 1, 1]
        assert np.issubdtype(index.labels.dtype, np.integer)
        assert [index.path(i) for i in range(4)] == [
            f"{tmp_path}/{name}" for name in ("cat/1.png", "dog/1.jpg", "dog/2.jpg", "dog/old/9.webp")
        ]

    def test_takes_strings_and_relative_roots(self, tmp_path, monkeypatch):
        make(tmp_path, "photos/cat/1.png")
        monkeypatch.chdir(tmp_path)
        index = Index.from_directory("photos")
        monkeypatch.chdir("/")
        assert index.path(0) == f"{tmp_path}/photos/cat/1.png"
        assert index.root == f"{tmp_path}/photos"

    def test_order_is_by_class_then_by_bytes_of_the_path(self, tmp_path):
        # "-" sorts before "/" and "." before "/" in bytes; upper case before lower; "10" before "9".
        names = [
            "a/B.jpg",
            "a/a-1.jpg",
            "a/a.jpg",
            "a/a/1.jpg",
            "a/a0.jpg",
            "a/x/10.jpg",
            "a/x/9.jpg",
            "a b/0.jpg",
            "é/1.jpg",
        ]
        make(tmp_path, *reversed(names))
        got = relative(Index.from_directory(tmp_path))
        assert got == sorted(names, key=lambda name: (os.fsencode(name.split("/")[0]), os.fsencode(name)))

    def test_order_does_not_depend_on_the_file_system(self, tmp_path, monkeypatch):
        make(tmp_path, *(f"{c}/{d}/{i}.jpg" for c in "ab" for d in "xy" for i in range(3)))
        expected = relative(Index.from_directory(tmp_path))
        scandir = os.scandir

        class Backwards:
            def __init__(self, path):
                with scandir(path) as entries:
                    self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

            def __enter__(self):
                return iter(self.entries)

            def __exit__(self, *_):
                pass

        monkeypatch.setattr(os, "scandir", Backwards)
        assert relative(Index.from_directory(tmp_path)) == expected == sorted(expected)

    def test_hidden_files_and_folders_are_passed_over(self, tmp_path):
        make(tmp_path, ".git/1.jpg", "a/.1.jpg", "a/.thumbs/1.jpg", "a/.jpg", "a/1.jpg")
        index = Index.from_directory(tmp_path)
        assert index.classes == ("a",)
        assert relative(index) == ["a/1.jpg"]

    def test_other_files_are_passed_over(self, tmp_path):
        make(tmp_path, "a/1.jpg", "a/notes.txt", "a/jpg", "a/1.jpg.part", "readme.md", "stray.jpg")
        assert relative(Index.from_directory(tmp_path)) == ["a/1.jpg"]

    @pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "JPG", "Png"])
    def test_image_suffixes_in_any_case(self, tmp_path, suffix):
        make(tmp_path, f"a/1.{suffix}")
        assert len(Index.from_directory(tmp_path)) == 1
        assert "." + suffix.lower() in IMAGE_SUFFIXES

    @pytest.mark.parametrize("suffixes", [[".npy"], ("NPY",), {"npy"}])
    def test_other_suffixes_on_request(self, tmp_path, suffixes):
        make(tmp_path, "a/1.jpg", "a/2.npy")
        assert relative(Index.from_directory(tmp_path, suffixes=suffixes)) == ["a/2.npy"]

    @pytest.mark.parametrize("suffixes", [".jpg", []])
    def test_suffixes_must_be_a_list(self, tmp_path, suffixes):
        make(tmp_path, "a/1.jpg")
        with pytest.raises(ConfigError, match="suffixes"):
            Index.from_directory(tmp_path, suffixes=suffixes)

    def test_an_empty_class_keeps_its_number(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/", "c/1.jpg")
        index = Index.from_directory(tmp_path)
        assert index.classes == ("a", "b", "c")
        assert index.labels.tolist() == [0, 2]

    def test_a_folder_named_like_an_image_is_a_folder(self, tmp_path):
        make(tmp_path, "a/x.jpg/1.png", "b.png/2.png")
        index = Index.from_directory(tmp_path)
        assert index.classes == ("a", "b.png")
        assert relative(index) == ["a/x.jpg/1.png", "b.png/2.png"]

    def test_names_that_are_not_utf8_open(self, tmp_path):
        make(tmp_path, b"caf\xe9/\xff\xfe.jpg", "a/1.jpg")
        (tmp_path / os.fsdecode(b"caf\xe9/\xff\xfe.jpg")).write_bytes(b"pixels")
        index = Index.from_directory(tmp_path)
        assert os.fsencode(index.classes[1]) == b"caf\xe9"
        assert os.fsencode(index.path(1)).endswith(b"/caf\xe9/\xff\xfe.jpg")
        assert Path(index.path(1)).read_bytes() == b"pixels"
        assert len(index.fingerprint) == len(Index.from_directory(tmp_path).fingerprint)

    def test_names_with_line_breaks_and_other_alphabets(self, tmp_path):
        names = ["a/new\nline.jpg", "a/ひらがな.jpg", "a/🐈.jpg"]
        make(tmp_path, *names)
        assert sorted(relative(Index.from_directory(tmp_path))) == sorted(names)

    def test_folders_deeper_than_python_recurses(self, tmp_path):
        deep = "a/" + "d/" * 300 + "1.jpg"
        make(tmp_path, *(deep[: 2 * i] for i in range(1, 302)), deep)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(250)
        try:
            index = Index.from_directory(tmp_path)
        finally:
            sys.setrecursionlimit(limit)
        assert relative(index) == [deep]

    def test_no_python_object_per_path_stays(self, tmp_path):
        make(tmp_path, *(f"class{c}/{i:06d}.jpg" for c in range(2) for i in range(500)))
        Index.from_directory(tmp_path)  # imports and caches filled
        tracemalloc.start()
        index = Index.from_directory(tmp_path)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        # 17 bytes of path, 8 of offset and 4 of label; a bytes object alone takes 50.
        assert kept / len(index) < 40


class TestLinks:
    def test_files_and_folders_are_followed(self, tmp_path):
        make(tmp_path, "store/1.jpg", "store/more/2.jpg", "data/a/0.jpg")
        (tmp_path / "data/a/linked.jpg").symlink_to(tmp_path / "store/1.jpg")
        (tmp_path / "data/a/sub").symlink_to(tmp_path / "store/more")
        (tmp_path / "data/b").symlink_to(tmp_path / "store")
        index = Index.from_directory(tmp_path / "data")
        assert relative(index) == ["a/0.jpg", "a/linked.jpg", "a/sub/2.jpg", "b/1.jpg", "b/more/2.jpg"]
        assert index.classes == ("a", "b")

    @pytest.mark.parametrize("target", [".", "..", "../..", "../../a"])
    def test_a_circle_ends(self, tmp_path, target):
        make(tmp_path, "a/x/1.jpg", "b/2.jpg")
        (tmp_path / "a/x/loop").symlink_to(target)
        assert relative(Index.from_directory(tmp_path)) == ["a/x/1.jpg", "b/2.jpg"]

    def test_a_circle_through_two_classes_ends(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/2.jpg")
        (tmp_path / "a/to_b").symlink_to("../b")
        (tmp_path / "b/to_a").symlink_to("../a")
        assert relative(Index.from_directory(tmp_path)) == ["a/1.jpg", "a/to_b/2.jpg", "b/2.jpg", "b/to_a/1.jpg"]

    def test_a_class_that_is_a_link_to_the_root_is_no_class(self, tmp_path):
        make(tmp_path, "a/1.jpg")
        (tmp_path / "loop").symlink_to(".")
        assert Index.from_directory(tmp_path).classes == ("a",)

    def test_the_same_folder_twice_is_no_circle(self, tmp_path):
        make(tmp_path, "a/x/1.jpg")
        (tmp_path / "a/y").symlink_to("x")
        assert relative(Index.from_directory(tmp_path)) == ["a/x/1.jpg", "a/y/1.jpg"]

    def test_dangling_links_to_images_are_samples(self, tmp_path):
        make(tmp_path, "a/1.jpg")
        (tmp_path / "a/gone.jpg").symlink_to("nowhere.jpg")
        (tmp_path / "a/itself.jpg").symlink_to("itself.jpg")
        (tmp_path / "a/gone").symlink_to("nowhere")
        (tmp_path / "a/itself").symlink_to("itself")
        assert relative(Index.from_directory(tmp_path)) == ["a/1.jpg", "a/gone.jpg", "a/itself.jpg"]

    def test_what_is_no_file_but_is_named_like_one_is_a_sample(self, tmp_path):
        make(tmp_path, "a/1.jpg")
        os.mkfifo(tmp_path / "a/pipe.jpg")
        assert relative(Index.from_directory(tmp_path)) == ["a/1.jpg", "a/pipe.jpg"]


class TestGivenClasses:
    def test_a_validation_folder_takes_the_numbering_of_training(self, tmp_path):
        make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", "valid/c/1.jpg", "valid/b/1.jpg")
        train = Index.from_directory(tmp_path / "train")
        valid = Index.from_directory(tmp_path / "valid", classes=train.classes)
        assert valid.classes == train.classes
        assert valid.labels.tolist() == [1, 2]

    def test_samples_follow_the_given_order(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/1.jpg")
        index = Index.from_directory(tmp_path, classes=["b", "a"])
        assert index.labels.tolist() == [0, 1]
        assert relative(index) == ["b/1.jpg", "a/1.jpg"]

    def test_an_unknown_folder_is_an_error_that_names_it(self, tmp_path):
        make(tmp_path, "a/1.jpg", "zebra/1.jpg")
        with pytest.raises(ConfigError, match="zebra"):
            Index.from_directory(tmp_path, classes=["a", "b"])

    @pytest.mark.parametrize("classes", ["ab", [], ["a", "a"], [1]])
    def test_classes_must_be_different_names(self, tmp_path, classes):
        make(tmp_path, "a/1.jpg")
        with pytest.raises(ConfigError, match="classes"):
            Index.from_directory(tmp_path, classes=classes)


class TestBadFolders:
    def fails(self, root, *words):
        with pytest.raises(ConfigError) as error:
            Index.from_directory(root)
        for word in words:
            assert word in str(error.value)
        assert "\n" not in str(error.value)
        str(error.value).encode()  # printable on every terminal

    def test_missing(self, tmp_path):
        self.fails(tmp_path / "nowhere", "nowhere", "does not exist")

    def test_empty_name(self):
        self.fails("", "no image folder given")

    def test_a_file(self, tmp_path):
        make(tmp_path, "photo.jpg")
        self.fails(tmp_path / "photo.jpg", "photo.jpg", "is a file")

    def test_an_empty_folder(self, tmp_path):
        self.fails(tmp_path, str(tmp_path), "no class folders", "ROOT/<class>/<image>")

    def test_images_without_class_folders(self, tmp_path):
        make(tmp_path, "1.jpg", "2.jpg", "notes.txt")
        self.fails(tmp_path, "no class folders", "2 images directly in it", "ROOT/<class>/<image>")

    def test_classes_without_images(self, tmp_path):
        make(tmp_path, "a/notes.txt", "b/")
        self.fails(tmp_path, str(tmp_path), "no images", ".jpg")

    def test_a_name_that_is_not_text(self, tmp_path):
        make(tmp_path, b"\xff\n/")
        self.fails(tmp_path / os.fsdecode(b"\xff\n"), "no class folders")

    @pytest.mark.parametrize("closed", ["", "b", "a/sub"])
    @pytest.mark.parametrize("mode", [0o000, 0o444], ids=["closed", "not enterable"])
    def test_an_unreadable_folder(self, tmp_path, closed, mode):
        root = tmp_path / "root"
        make(root, "a/1.jpg", "a/sub/deep/2.jpg", "b/x/3.jpg")
        message = message_with_a_closed_folder(root, root / closed, mode)
        assert message.startswith("ConfigError: cannot read folder")
        assert str(root / closed) in message
        assert "Permission denied" in message

    def test_a_link_into_an_unreadable_folder(self, tmp_path):
        make(tmp_path, "root/a/1.jpg", "secret/photos/2.jpg")
        (tmp_path / "root/a/more").symlink_to(tmp_path / "secret/photos")
        message = message_with_a_closed_folder(tmp_path / "root", tmp_path / "secret", 0o000)
        assert "root/a/more" in message
        assert "Permission denied" in message


def message_with_a_closed_folder(root, closed, mode):
    """What `from_directory(root)` says while the folder `closed` has that mode.

    Root may read every folder, so it is asked in a process that gave up being root. All other folders are opened to
    that process first, those above included: pytest's are closed to all but their owner.
    """
    code = (
        "import os, sys; from dist_loader.index import Index\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setegid(65534); os.seteuid(65534)\n"
        "try: print(Index.from_directory(sys.argv[1]))\n"
        "except Exception as error: print(f'{type(error).__name__}: {error}')"
    )
    above = [folder for folder in root.parents if os.geteuid() == 0 and not folder.stat().st_mode & 0o001]
    before = [(folder, folder.stat().st_mode) for folder in above]
    for folder, mode_before in before:
        folder.chmod(mode_before | 0o001)
    for folder in [root, *root.rglob("*/")]:
        folder.chmod(0o755)
    closed.chmod(mode)
    try:
        result = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    finally:
        closed.chmod(0o755)
        for folder, mode_before in before:
            folder.chmod(mode_before)
    return result.stdout


class TestValue:
    def test_nothing_can_be_changed(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/2.jpg")
        index = Index.from_directory(tmp_path)
        for each in (index, index.take([1]), pickle.loads(pickle.dumps(index)), copy.deepcopy(index)):
            for values in (each.labels, each.buffer, each.offsets):
                with pytest.raises(ValueError, match="read-only"):
                    values[0] = 0
        with pytest.raises(dataclasses.FrozenInstanceError):
            index.labels = None

    def test_the_makers_arrays_stay_writable(self):
        labels = np.zeros(1, dtype=np.int32)
        Index("/d", ("a",), labels, np.frombuffer(b"a/1", dtype=np.uint8), np.array([0, 3]))
        labels[0] = 0

    def test_survives_pickling(self, tmp_path):
        make(tmp_path, "a/1.jpg", "b/2.jpg")
        index = Index.from_directory(tmp_path)
        twin = pickle.loads(pickle.dumps(index))
        assert twin.fingerprint == index.fingerprint
        assert twin.path(1) == index.path(1)

    def test_repr_is_short(self, tmp_path):
        make(tmp_path, *(f"class{i}/1.jpg" for i in range(300)))
        text = repr(Index.from_directory(tmp_path))
        assert "300 samples" in text
        assert "300 classes" in text
        assert len(text) < 100 + len(str(tmp_path))

    @pytest.mark.parametrize("outside", [2, -1, 10**20])
    def test_there_is_no_sample_outside_of_the_range(self, outside):
        with pytest.raises(IndexError, match="2 samples"):
            build(["a/1", "a/2"]).path(outside)

    def test_numpy_numbers_name_samples_too(self):
        assert build(["a/1", "a/22"]).path(np.int64(1)) == "/data/a/22"

    @pytest.mark.parametrize(
        "wrong",
        [
            {"labels": np.zeros(2, dtype=np.float32)},
            {"labels": np.zeros(3, dtype=np.int32)},
            {"labels": [0, 0]},
            {"offsets": np.array([0, 3, 7])},
            {"offsets": np.array([1, 3, 6])},
            {"buffer": np.zeros((2, 3), dtype=np.uint8)},
        ],
        ids=lambda wrong: next(iter(wrong)),
    )
    def test_parts_that_do_not_fit_are_errors(self, wrong):
        good = build(["a/1", "a/2"])
        with pytest.raises(ConfigError, match=r"offset|labels|buffer"):
            dataclasses.replace(good, **wrong)


class TestFingerprint:
    base = build(["a/1.jpg", "a/2.jpg", "b/3.jpg"], labels=[0, 0, 1])

    def test_is_short_text_and_stays_the_same_between_versions(self):
        assert self.base.fingerprint == "bf389e843ac637e56d67118ba4db2c21"

    @pytest.mark.parametrize(
        "other",
        [
            build(["a/1.jpg", "a/2.jpg", "b/4.jpg"], labels=[0, 0, 1]),
            build(["a/1.jpg", "a/2.jpg", "b/3.jpg"], labels=[0, 1, 1]),
            build(["a/2.jpg", "a/1.jpg", "b/3.jpg"], labels=[0, 0, 1]),
            build(["a/1.jpg", "a/2.jpg"], labels=[0, 0]),
            build(["a/1.jpga", "/2.jpg", "b/3.jpg"], labels=[0, 0, 1]),
            build(["a/1.jpg", "a/2.jpg", "b/3.jpg"], labels=[0, 0, 1], classes="abd"),
            build(["a/1.jpg", "a/2.jpg", "b/3.jpg"], labels=[0, 0, 1], classes=["a", "bc"]),
            build(["a/1.jpg", "a/2.jpg", "b/3.jpg"], labels=[0, 0, 1], classes=["a", "b"]),
        ],
        ids=["path", "label", "order", "fewer", "boundary", "class", "class boundary", "fewer classes"],
    )
    def test_changes_with(self, other):
        assert other.fingerprint != self.base.fingerprint

    def test_does_not_change_with_the_root(self, tmp_path):
        for mount in ("one", "two"):
            make(tmp_path / mount, "a/1.jpg", "b/1.jpg")
        one, two = (Index.from_directory(tmp_path / mount) for mount in ("one", "two"))
        assert one.fingerprint == two.fingerprint

    def test_changes_when_a_file_is_added_or_renamed(self, tmp_path):
        seen = set()
        make(tmp_path, "a/1.jpg", "b/1.jpg")
        seen.add(Index.from_directory(tmp_path).fingerprint)
        make(tmp_path, "a/2.jpg")
        seen.add(Index.from_directory(tmp_path).fingerprint)
        (tmp_path / "a/2.jpg").rename(tmp_path / "a/3.jpg")
        seen.add(Index.from_directory(tmp_path).fingerprint)
        (tmp_path / "a/3.jpg").rename(tmp_path / "b/3.jpg")
        seen.add(Index.from_directory(tmp_path).fingerprint)
        assert len(seen) == 4

    def test_long_indexes_are_read_to_the_end(self):
        names = [f"a/{i}" for i in range(70_000)]
        labels = [0] * 70_000
        changed = build(names, labels=[*labels[:-1], 1])
        longer = build([*names[:-2], names[-2] + "a", "/69999"], labels=labels)
        assert len({build(names).fingerprint, changed.fingerprint, longer.fingerprint}) == 3


PATHS = st.lists(st.binary(max_size=12), max_size=40)


class TestTake:
    @settings(max_examples=100, deadline=None)
    @given(paths=PATHS.filter(len), data=st.data())
    def test_takes_what_was_asked_for_in_that_order(self, paths, data):
        index = build(paths, labels=[i % 3 for i in range(len(paths))])
        numbers = data.draw(st.lists(st.integers(0, len(paths) - 1), max_size=60))
        part = index.take(np.array(numbers, dtype=np.int64))
        assert [part.path(i) for i in range(len(part))] == [index.path(i) for i in numbers]
        assert part.labels.tolist() == index.labels[numbers].tolist()
        assert part.classes == index.classes
        assert part.root == index.root

    def test_all_in_order_is_the_same_index(self):
        index = build([f"a/{i}" for i in range(100)])
        assert index.take(range(100)).fingerprint == index.fingerprint

    def test_more_than_one_block(self):
        index = build([f"a/{i}" for i in range(1000)])
        numbers = np.random.default_rng(0).integers(0, 1000, 150_000)
        part = index.take(numbers)
        for i in (0, 65_535, 65_536, 131_072, 149_999):
            assert part.path(i) == index.path(numbers[i])

    def test_nothing(self):
        assert len(build(["a/1"]).take([])) == 0

    @pytest.mark.parametrize("numbers", [[2], [-1], [0, 2], np.array([2**63], dtype=np.uint64)])
    def test_out_of_range(self, numbers):
        with pytest.raises(IndexError, match="out of range for an index of 2 samples"):
            build(["a/1", "a/2"]).take(numbers)

    @pytest.mark.parametrize("numbers", [[True, False], [0.0], [[0]], 0])
    def test_what_are_not_numbers(self, numbers):
        with pytest.raises(TypeError, match="1-D array of integers"):
            build(["a/1", "a/2"]).take(numbers)


class TestSplit:
    @settings(max_examples=100, deadline=None)
    @given(
        labels=st.lists(st.integers(0, 2), min_size=2, max_size=200),
        fraction=st.floats(0.01, 0.99),
        seed=st.integers(-(2**70), 2**70),
    )
    def test_every_sample_is_in_exactly_one_part_and_every_class_has_its_share(self, labels, fraction, seed):
        index = build([f"{label}/{i}" for i, label in enumerate(labels)], labels=labels)
        held_out_count = round(len(labels) * fraction)
        if not 0 < held_out_count < len(labels):
            with pytest.raises(ConfigError, match="both parts need at least one"):
                index.split(fraction, seed)
            return
        rest, held_out = index.split(fraction, seed)
        assert len(held_out) == held_out_count
        parts = [[part.path(i) for i in range(len(part))] for part in (rest, held_out)]
        everything = [index.path(i) for i in range(len(index))]
        assert sorted(parts[0] + parts[1]) == sorted(everything)
        assert not set(parts[0]) & set(parts[1])
        for part in parts:
            assert part == sorted(part, key=everything.index)
        for label in range(3):
            share = labels.count(label) * held_out_count / len(labels)
            assert abs((held_out.labels == label).sum() - share) < 1
        assert rest.classes == held_out.classes == index.classes

    def test_same_seed_same_split_other_seed_other_split(self):
        index = build([f"a/{i}" for i in range(1000)])
        one, same, other = (index.split(0.2, seed)[1].fingerprint for seed in (0, 0, 1))
        assert one == same
        assert one != other

    def test_every_sample_is_held_out_equally_often(self):
        index = build([f"{i % 2}/{i:02d}" for i in range(40)], labels=[i % 2 for i in range(40)])
        times = dict.fromkeys((index.path(i) for i in range(40)), 0)
        for seed in range(400):
            held_out = index.split(0.25, seed)[1]
            for i in range(len(held_out)):
                times[held_out.path(i)] += 1
        # 400 draws of a chance of 1/4: 100 with a deviation of 8.7; 6 deviations either way.
        assert 48 < min(times.values()) <= max(times.values()) < 152

    @pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan"), True, False])
    def test_a_fraction_out_of_range_is_an_error(self, fraction):
        with pytest.raises(ConfigError, match="fraction"):
            build(["a/1", "a/2"]).split(fraction)

    def test_a_part_that_would_be_empty_is_an_error(self):
        with pytest.raises(ConfigError, match="both parts need at least one"):
            build(["a/1", "a/2", "a/3"]).split(0.1)


def test_importing_is_light():
    code = "import sys, dist_loader.index; print({'tensorflow', 'keras', 'PIL', 'pyarrow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
