"""Samples that cannot be read: what the model sees in their place, who is told, and when it is too much."""

import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import zlib
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import dist_loader as dl
import dist_loader.readers.image
import dist_loader.readers.opening
from dist_loader.bad_samples.file import BadSample, BadSampleFile
from dist_loader.bad_samples.policy import budget_in_samples, stand_ins
from dist_loader.errors import ConfigError, ReadTimeout, SampleError, TooManyBadSamples
from dist_loader.index import Index
from dist_loader.readers.source import Source
from dist_loader.sequence.image import ImageSequence
from dist_loader.world import World
from tests.failures import documented

SAMPLES = 40
SIZE = (4, 4)


def of(rank, size):
    return World(rank=rank, size=size, local_rank=rank, local_size=size)


@pytest.fixture
def photos(tmp_path):
    """40 images, each showing its sample number in red and its label in blue."""
    root = tmp_path / "photos"
    for number in range(SAMPLES):
        folder = root / "ab"[number // 20]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.full((8, 8, 3), (number, 0, number // 20), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return root


@pytest.fixture
def make(photos, threads):
    """Makes sequences, which are closed at the end of the test. The index is made when all files were whole."""
    index, made = Index.from_directory(photos), []

    def make(rank=0, size=1, device_batch=8, **kwargs):
        kwargs = {"bad_budget": 1.0, "threads": 3, **kwargs}
        made.append(ImageSequence(index, SIZE, device_batch // size, 64, world=of(rank, size), **kwargs))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def break_files(root, numbers):
    for number in numbers:
        (root / "ab"[number // 20] / f"{number:02}.png").write_bytes(b"")


def shown(sequence, epoch=0):
    """By step: the numbers that the pixels show, the labels, and the weights."""
    sequence.epoch = epoch
    steps = []
    for images, labels, *weights in sequence:
        assert (images == images[:, :1, :1]).all(), "a row is made of several samples"
        assert (images[:, 0, 0, 2] == labels).all(), "labels and pixels are of different samples"
        steps.append((images[:, 0, 0, 0].tolist(), labels.tolist(), weights[0].tolist() if weights else None))
    return steps


def planned(sequence, epoch=0):
    return [sequence.plan.batch(epoch, step, sequence.world.rank)[0].tolist() for step in range(len(sequence))]


# ------------------------------------------------------------------------------------------------------- the policies


BAD = {0, 7, 19, 20, 39}


def test_raise_names_the_first_bad_sample_and_is_the_default(make, photos):
    break_files(photos, BAD)
    sequence = make(shuffle=False, bad_budget=None)
    advice = 'mend it, or go on without it with on_bad="replace" or "weight0"'
    words = rf"^rank 0: cannot read sample 0, '.*/00.png': not an image that Pillow knows; {advice}$"
    with pytest.raises(SampleError, match=words) as caught:
        sequence[0]
    assert caught.value.rank == 0
    assert documented(str(caught.value))


@pytest.mark.parametrize("epoch", [0, 3])
def test_replace_puts_another_sample_with_its_label_there(epoch, make, photos):
    break_files(photos, BAD)
    sequence = make(on_bad="replace")
    steps = shown(sequence, epoch)
    assert len(steps) == 5
    for (numbers, labels, weights), wanted in zip(steps, planned(sequence, epoch), strict=True):
        assert weights is None
        assert labels == [number // 20 for number in numbers]
        for number, asked in zip(numbers, wanted, strict=True):
            if asked in BAD:
                assert number == next(n for n in stand_ins(asked, epoch, 0, SAMPLES) if n not in BAD)
            else:
                assert number == asked
    assert sequence.missing(epoch) == BAD
    assert sequence.missing(epoch + 1) == set()


def test_weight0_leaves_the_mean_exact_and_shows_a_picture(make, photos):
    break_files(photos, BAD)
    sequence = make(on_bad="weight0", class_weight={1: 3.0})
    for step, ((numbers, _, weights), wanted) in enumerate(zip(shown(sequence), planned(sequence), strict=True)):
        bad = np.isin(wanted, list(BAD))
        assert not set(numbers) & BAD
        own = np.where(np.array(wanted) < 20, 1.0, 3.0)
        np.testing.assert_allclose(np.array(weights)[~bad], own[~bad] * 8 / (8 - bad.sum()), rtol=1e-6)
        assert np.signbit(weights).tolist() == bad.tolist(), step  # minus zero: not real
        assert np.array(weights)[bad].tolist() == [0] * bad.sum()


def test_weight0_always_comes_with_weights_and_keeps_the_fill(make, photos):
    assert [weights for _, _, weights in shown(make(on_bad="weight0"))] == [[1.0] * 8] * 5
    break_files(photos, [1, 36])
    sequence = make(on_bad="weight0", device_batch=16, shuffle=False)  # the last step has 8 real samples
    first, _, last = (weights for _, _, weights in shown(sequence))
    assert first == [float(np.float32(16 / 15))] + [0.0] + [float(np.float32(16 / 15))] * 14
    real = [float(np.float32(16 / 7))]
    assert last == real * 4 + [0.0] + real * 3 + [0.0] * 8


def test_a_batch_without_any_good_sample_weighs_nothing(make, photos):
    break_files(photos, range(8))
    (_, _, weights), *others = shown(make(on_bad="weight0", shuffle=False))
    assert weights == [0.0] * 8
    assert all(weights == [1.0] * 8 for _, _, weights in others)


def test_it_is_the_same_for_every_world_and_number_of_threads(make, photos):
    break_files(photos, BAD)

    def steps(size, **kwargs):
        """The numbers that the ranks show together, and which of them count."""
        ranks = [shown(make(rank, size, sample_weight=np.ones(SAMPLES), **kwargs), epoch=2) for rank in range(size)]
        return [
            [(number, weight > 0) for part in step for number, weight in zip(part[0], part[2], strict=True)]
            for step in zip(*ranks, strict=True)
        ]

    for on_bad in ("replace", "weight0"):
        one = steps(1, on_bad=on_bad)
        for size, threads in ((2, 1), (4, 8)):
            assert steps(size, on_bad=on_bad, threads=threads) == one


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(-(2**70), 2**70), st.integers(1, 10**9))
def test_stand_ins_are_other_samples_few_and_a_pure_function(sample, epoch, seed, samples):
    sample %= samples
    tried = list(stand_ins(sample, epoch, seed, samples))
    assert len(tried) == (16 if samples > 1 else 0)
    assert all(0 <= other < samples and other != sample for other in tried)
    assert tried == list(stand_ins(sample, epoch, seed, samples))


def test_stand_ins_are_spread_over_the_index_and_differ_by_epoch_and_seed():
    firsts = [next(stand_ins(3, epoch, seed, 10)) for epoch in range(300) for seed in range(3)]
    counts = np.bincount(firsts, minlength=10)
    assert counts[3] == 0
    assert counts[np.arange(10) != 3].min() > 60


def test_where_no_stand_in_can_be_read_replace_is_an_error_and_weight0_shows_nothing(make, photos):
    break_files(photos, range(SAMPLES))
    with pytest.raises(SampleError, match="of 16 samples tried in its place none could be read"):
        make(on_bad="replace")[0]
    images, _, weights = make(on_bad="weight0")[0]
    assert not images.any()
    assert not weights.any()


def test_a_mended_file_is_used_again(make, photos):
    broken = photos / "a" / "05.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:-40])
    sequence = make(on_bad="replace", shuffle=False)
    assert shown(sequence, 0)[0][0][5] != 5
    broken.write_bytes(whole)
    sequence.close()  # what was read ahead was read before
    assert shown(sequence, 1)[0][0][5] == 5


@pytest.mark.parametrize("on_bad", ["replace", "weight0"])
def test_a_stand_in_is_never_kept_in_the_cache_under_the_bad_ones_number(on_bad, make, photos, tmp_path):
    broken = photos / "a" / "05.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"x" * len(whole))
    first = make(on_bad=on_bad, shuffle=False, cache=tmp_path / "cache")
    shown(first)
    broken.write_bytes(whole)
    again = make(on_bad=on_bad, shuffle=False, cache=tmp_path / "cache")
    assert [numbers for numbers, _, _ in shown(again)] == planned(again)


@pytest.mark.parametrize("how", ["augment", "augment_batch"])
@pytest.mark.parametrize("on_bad", ["replace", "weight0"])
def test_samples_read_before_a_bad_one_have_their_labels_and_are_augmented_once(on_bad, how, make, photos):
    def mark(x, y, rng):
        x[..., 1] += 1
        return x, y

    break_files(photos, BAD)
    sequence = make(on_bad=on_bad, shuffle=False, device_batch=20, threads=1, **{how: mark})  # 10 or 20 at once
    for (numbers, _, _), wanted in zip(shown(sequence), planned(sequence), strict=True):  # labels are looked at, too
        assert [number for number, asked in zip(numbers, wanted, strict=True) if asked not in BAD] == [
            asked for asked in wanted if asked not in BAD
        ]
    sequence.epoch = 0
    assert all((images[..., 1] == 1).all() for images, *_ in sequence)


@pytest.mark.parametrize("on_bad", ["replace", "weight0"])
def test_predictions_for_bad_samples_are_nan_or_an_error(on_bad, make, photos):
    break_files(photos, BAD)
    strategy = dl.init("single")
    images = keras.Input((*SIZE, 3), dtype="uint8")
    red = keras.layers.Lambda(lambda image: keras.ops.cast(image[:, 0, 0, :1], "float32"))(images)
    predicted = strategy.predict(keras.Model(images, red), make(on_bad=on_bad))[:, 0]
    assert np.flatnonzero(np.isnan(predicted)).tolist() == sorted(BAD)
    good = np.setdiff1d(np.arange(SAMPLES), sorted(BAD))
    assert predicted[good].tolist() == good.tolist()
    whole = keras.layers.Lambda(lambda image: keras.ops.cast(image[:, 0, 0, :1], "int32"))(images)
    with pytest.raises(SampleError, match="an output of type int32 has no NaN"):
        strategy.predict(keras.Model(images, whole), make(on_bad=on_bad))


# ---------------------------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize(
    ("budget", "samples", "most"),
    [
        (None, 10**6, 10**4),
        (None, 1000, 16),
        (None, 20, 10),
        (None, 1, 0),
        (0, 100, 0),
        (7, 100, 7),
        (1, 100, 1),
        (np.int64(3), 100, 3),
        (0.01, 250, 2),
        (0.0, 250, 0),
        (1.0, 250, 250),
    ],
)
def test_a_budget_is_a_number_or_a_share(budget, samples, most):
    assert budget_in_samples(budget, samples) == most


@pytest.mark.parametrize("budget", [-1, -0.1, 1.01, float("nan"), "10", True, "1%"])
def test_a_budget_that_makes_no_sense_is_refused(budget):
    with pytest.raises(ConfigError, match="bad_budget must be"):
        budget_in_samples(budget, 100)


@pytest.mark.parametrize("on_bad", ["replace", "weight0"])
def test_past_the_budget_the_job_stops_and_says_why(on_bad, make, photos, tmp_path):
    break_files(photos, range(6))
    file = tmp_path / "run" / "bad_samples.jsonl"
    sequence = make(on_bad=on_bad, bad_budget=5, bad_file=file, shuffle=False, threads=1)
    with pytest.raises(TooManyBadSamples) as caught:
        shown(sequence)
    error = caught.value
    assert (error.count, error.budget, error.rank, error.file) == (6, 5, 0, file)
    assert error.path == str(photos / "a" / "05.png")
    assert re.match(r"rank 0: 6 samples cannot be read, and bad_budget allows 5; the last is '.*05.png': ", str(error))
    assert str(file) in str(error)
    assert documented(str(error))
    assert len(lines(file)) == 6
    assert len(shown(make(on_bad=on_bad, bad_budget=6, shuffle=False))) == 5


def test_the_budget_is_of_all_ranks_and_epochs_and_restarted_runs(make, photos, tmp_path):
    break_files(photos, range(0, 40, 8))  # one in each step, on rank 0
    break_files(photos, [4])  # on rank 1
    file = tmp_path / "bad_samples.jsonl"
    kwargs = {"on_bad": "weight0", "bad_file": file, "shuffle": False}
    for _ in range(2):
        shown(make(0, 2, bad_budget=5, **kwargs), 0)
        assert len(lines(file)) == 5
    with pytest.raises(TooManyBadSamples, match=r"^rank 1: 6 samples"):
        shown(make(1, 2, bad_budget=5, **kwargs), 1)


def test_bad_files_of_another_index_do_not_count_but_are_not_written_twice(make, photos, tmp_path):
    break_files(photos, [0, 1, 2])
    file = tmp_path / "bad_samples.jsonl"
    other = Index.from_directory(photos).take([0, 1, 2, 3])
    validation = ImageSequence(other, SIZE, 4, world=of(0, 1), on_bad="weight0", bad_budget=3, bad_file=file)
    shown(validation)
    validation.close()
    break_files(photos, [30])
    train = make(on_bad="weight0", bad_budget=4, bad_file=file)
    shown(train)
    assert len(lines(file)) == 4
    assert len(train.bad_samples.marks()) == 4
    assert set(train.bad_samples.marks()) > set(validation.bad_samples.marks())


# ---------------------------------------------------------------------------------------------------------------- file


def lines(file):
    return [json.loads(line) for line in Path(file).read_bytes().decode("ascii").splitlines()]


def test_every_bad_sample_is_one_line(make, photos, tmp_path):
    break_files(photos, BAD)
    file = tmp_path / "run" / "deep" / "bad_samples.jsonl"
    for rank in (0, 1):
        for epoch in (0, 1):
            shown(make(rank, 2, on_bad="replace", bad_file=file), epoch)
    found = lines(file)
    assert sorted(line["sample"] for line in found) == sorted(BAD)
    for line in found:
        assert line["path"] == str(photos / "ab"[line["sample"] // 20] / f"{line['sample']:02}.png")
        assert line["reason"] == "not an image that Pillow knows"
        assert line["rank"] in (0, 1)
        assert line["epoch"] in (0, 1)
        assert line["label"] == line["sample"] // 20


def test_raise_writes_it_down_too(make, photos, tmp_path):
    break_files(photos, [3])
    file = tmp_path / "bad_samples.jsonl"
    with pytest.raises(SampleError):
        make(bad_file=file, shuffle=False)[0]
    assert [line["sample"] for line in lines(file)] == [3]


def test_a_file_given_later_gets_what_was_found_before(make, photos, tmp_path):
    break_files(photos, [3, 11])
    sequence = make(on_bad="weight0", shuffle=False)
    shown(sequence)
    sequence.bad_samples.write_to(tmp_path / "bad_samples.jsonl")
    assert sorted(line["sample"] for line in lines(tmp_path / "bad_samples.jsonl")) == [3, 11]


def bad(number, index="this"):
    return BadSample(f"/data/{number}\udcff\n.jpg", "why", 0, 0, number, 0, index)


def test_a_torn_last_line_is_mended(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    BadSampleFile(path).append([bad(0), bad(1)])
    whole = path.read_bytes()
    for cut in [*range(0, len(whole), 7), *range(len(whole) - 5, len(whole) + 1)]:
        path.write_bytes(whole[:cut])
        file = BadSampleFile(path)
        file.append([bad(1), bad(2)])
        assert sorted(line["sample"] for line in lines(path)) in ([0, 1, 2], [1, 2])
        assert len(file.paths("this")) == len(lines(path))
        assert (len(lines(path)) == 3) == (cut >= whole.index(b"\n"))


def test_lines_that_make_no_sense_are_left_alone(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    strange = b'{"path": 7}\nnot json \xff\xfe\n[]\nnull\n' + b"[" * 5000 + b"\n"
    path.write_bytes(strange)
    file = BadSampleFile(path)
    assert file.append([bad(1)]) == [bad(1)]
    assert path.read_bytes().startswith(strange)
    assert file.paths("this") == {bad(1).path}


def test_a_file_that_was_removed_is_begun_again(tmp_path):
    path = tmp_path / "bad_samples.jsonl"
    file = BadSampleFile(path)
    file.append([bad(1)])
    path.unlink()
    assert file.append([bad(1), bad(2)]) == [bad(1), bad(2)]
    assert len(lines(path)) == 2


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from dist_loader.bad_samples.file import BadSample, BadSampleFile
    file = BadSampleFile(Path(sys.argv[1]))
    rank = int(sys.argv[2])
    print("ready", flush=True)
    for number in range(300):
        number = (number * 7 + 100 * rank) % 300
        file.append([BadSample(f"/data/{number}", "r" * 500, rank, 0, number, 0, "this")])
""")


def test_many_processes_write_each_sample_once_though_some_are_killed(tmp_path):
    path = tmp_path / "bad_samples.jsonl"

    def start(rank):
        command = [sys.executable, "-c", WRITER, str(path), str(rank)]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    for _ in range(2):
        writers = [start(rank) for rank in range(3)]
        for writer in writers[:2]:
            writer.stdout.readline()
            time.sleep(0.01)
            writer.send_signal(signal.SIGKILL)
        for writer in writers:
            writer.communicate(timeout=60)
    assert sorted(line["sample"] for line in lines(path)) == list(range(300))


def test_a_file_that_cannot_be_is_refused_at_once(make, tmp_path):
    (tmp_path / "taken").write_text("")
    for file in (tmp_path, tmp_path / "taken" / "bad_samples.jsonl"):
        with pytest.raises(ConfigError, match="cannot write bad samples to"):
            make(bad_file=file)


def test_a_disk_that_is_full_is_told_once_and_the_training_goes_on(make, photos, tmp_path, monkeypatch, caplog):
    def full(self, found):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    break_files(photos, BAD)
    sequence = make(on_bad="weight0", bad_file=tmp_path / "bad.jsonl", bad_budget=5)
    append = BadSampleFile.append
    monkeypatch.setattr(BadSampleFile, "append", full)
    shown(sequence)
    assert caplog.text.count("No space left on device; going on") == 1
    assert len(sequence.bad_samples.marks()) == 5
    monkeypatch.setattr(BadSampleFile, "append", append)
    assert len(sequence.bad_samples.marks()) == 5
    assert sorted(line["sample"] for line in lines(tmp_path / "bad.jsonl")) == sorted(BAD)


def test_each_bad_sample_is_told_of_once_and_only_the_first_ones(make, photos, tmp_path, caplog):
    break_files(photos, range(25))
    sequence = make(on_bad="weight0", bad_file=tmp_path / "bad%s.jsonl")
    for epoch in range(2):
        shown(sequence, epoch)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 21
    assert len(set(told)) == 21
    assert all(record.name == "dist_loader" for record in caplog.records)
    pattern = r"rank 0: cannot read sample \d+, '.*png': not an image that Pillow knows; it does not count"
    assert all(re.fullmatch(pattern, line) for line in told[:20])
    assert all(documented(line) for line in told[:20])
    assert told[20].endswith(f"no more is told of each, they are in {tmp_path / 'bad%s.jsonl'}")


# ------------------------------------------------------------------------------------------------- what is a bad sample


def png(path, size=(8, 8)):
    Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(path, "png")


def bomb(path, side, kind):
    """A small file whose header promises very many pixels."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, kind)
    data = bytearray(path.read_bytes())
    if kind == "png":
        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = side.to_bytes(2, "big") * 2
    path.write_bytes(bytes(data))


def gone(path):
    path.unlink()


def becomes(make_it):
    def replace(path):
        path.unlink()
        make_it(path)

    return replace


def bound_socket(path):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's address is short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(here)


def huge(path):
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # sparse


def cut(path):
    path.write_bytes(path.read_bytes()[:-30])


WAYS = {
    "vanished": (gone, "No such file or directory"),
    "empty": (lambda path: path.write_bytes(b""), "not an image"),
    "truncated": (cut, ""),
    "text": (lambda path: path.write_text("hello" * 99), "not an image"),
    "postscript": (lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage"), "not an"),
    "folder": (becomes(Path.mkdir), "Is a directory"),
    "pipe": (becomes(os.mkfifo), "not a regular file: a pipe"),
    "socket": (bound_socket, "not a regular file: a socket"),
    "device": (becomes(lambda path: path.symlink_to("/dev/zero")), "not a regular file: a device"),
    "link to itself": (becomes(lambda path: path.symlink_to(path.name)), "Too many levels of symbolic links"),
    "huge": (huge, "1099511627776 bytes, more than the 1073741824"),
    "bomb png": (lambda path: bomb(path, 50_000, "png"), "DecompressionBombError"),
    "bomb jpeg": (lambda path: bomb(path, 65_000, "jpeg"), "DecompressionBombError"),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_no_readable_image_is_a_bad_sample(way, make, photos, tmp_path):
    damage, reason = WAYS[way]
    path = photos / "a" / "03.png"
    damage(path)
    sequence = make(on_bad="weight0", shuffle=False, bad_file=tmp_path / "bad.jsonl", timeout=20.0)
    (numbers, _, weights), *_ = shown(sequence)
    assert [at for at, weight in enumerate(weights) if weight == 0] == [3]
    assert numbers[3] != 3
    (line,) = lines(tmp_path / "bad.jsonl")
    assert (line["path"], line["sample"]) == (str(path), 3)
    assert reason in line["reason"]


def test_a_file_of_no_known_size_is_read_to_its_end_and_no_further_than_the_most(tmp_path, monkeypatch):
    assert bytes(Source().read("/proc/self/status")).startswith(b"Name:")
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda fd: os.stat_result([*fstat(fd)[:6], 0, 0, 0, 0]))  # it grows
    for length, most in ((300_000, 300_000), (4_000_000, 600_000)):
        (tmp_path / "file").write_bytes(b"x" * length)
        monkeypatch.setattr(dist_loader.readers.opening, "MOST_BYTES", most)
        if length <= most:
            assert bytes(Source().read(str(tmp_path / "file"))) == b"x" * length
            continue
        with pytest.raises(OSError, match="more than the 600000 bytes that are read of one file"):
            Source().read(str(tmp_path / "file"))


def test_a_wrong_suffix_is_no_fault(make, photos):
    Image.new("RGB", (8, 8), (3, 0, 0)).save(photos / "a" / "03.png", "gif")
    (numbers, _, weights), *_ = shown(make(on_bad="weight0", shuffle=False))
    assert numbers == list(range(8))
    assert weights == [1.0] * 8


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(make, photos):
    (photos / "a" / "03.png").chmod(0)
    assert shown(make(on_bad="weight0", shuffle=False))[0][2][3] == 0


@pytest.fixture
def failing(monkeypatch):
    """Lets a system call fail for some files, a number of times."""

    def fail(calls, number, times, code):
        left = [times]

        def failing(real, *args):
            of = Path(f"/proc/self/fd/{args[0]}").readlink() if isinstance(args[0], int) else args[0]
            if str(of).endswith(f"{number:02}.png") and left[0] > 0:
                left[0] -= 1
                raise OSError(code, os.strerror(code))
            return real(*args)

        for call in calls:
            monkeypatch.setattr(os, call, partial(failing, getattr(os, call)))

    return fail


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG])
@pytest.mark.parametrize("call", [["open"], ["read", "readv", "preadv"]], ids=["open", "read"])
def test_what_the_file_system_refuses_is_a_bad_sample(call, code, make, failing, tmp_path):
    failing(call, 3, 10**6, code)
    sequence = make(on_bad="weight0", shuffle=False, bad_file=tmp_path / "bad.jsonl")
    (_, _, weights), *others = shown(sequence)
    assert weights[3] == 0
    assert np.count_nonzero(weights) == 7
    assert all(weights == [1.0] * 8 for _, _, weights in others)
    tries = " (3 tries)" if code in (errno.EIO, errno.ESTALE) else ""
    assert [line["reason"] for line in lines(tmp_path / "bad.jsonl")] == [os.strerror(code) + tries]


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN])
@pytest.mark.parametrize("call", [["open"], ["read", "readv", "preadv"]], ids=["open", "read"])
def test_what_passes_is_tried_again(call, code, make, failing):
    failing(call, 3, 2, code)
    assert shown(make(shuffle=False))[0][0] == list(range(8))


def test_too_many_open_files_is_no_fault_of_a_sample(make, failing):
    failing(["open"], 3, 10**6, errno.EMFILE)
    with pytest.raises(SampleError, match=r"Too many open files; let a process have more of them \(ulimit -n\)$"):
        make(on_bad="weight0", shuffle=False)[0]


def test_no_descriptor_is_left_open(make, photos):
    for way in ("folder", "pipe", "device", "huge", "text", "truncated"):
        WAYS[way][0](photos / "a" / f"{list(WAYS).index(way):02}.png")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for epoch in range(3):
        sequence = make(on_bad="weight0")
        shown(sequence, epoch)
        sequence.close()  # or a file may be open just now
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ---------------------------------------------------------------------------------------------------------- time limit


@pytest.fixture
def hang(monkeypatch):
    """Lets the decoding of some images hang until they are released; then they scribble over their place."""
    release, decode, numbers = threading.Event(), dist_loader.readers.image.read_with_pillow, set()

    def decode_or_hang(data, box_of, resize, out):
        decode(data, box_of, resize, out)
        if int(out[0, 0, 0]) in numbers:
            release.wait(60)
            out[...] = 255

    monkeypatch.setattr(dist_loader.readers.image, "read_with_pillow", decode_or_hang)
    yield lambda *which: numbers.update(which), release
    release.set()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_image_that_takes_too_long_is_a_bad_sample(threads, make, hang, tmp_path):
    stuck, release = hang
    stuck(3, 12, 13)
    file = tmp_path / "bad.jsonl"
    sequence = make(on_bad="weight0", shuffle=False, decode_timeout=0.3, bad_file=file, threads=threads)
    began = time.monotonic()
    steps, held = [], []
    for epoch in range(2):
        sequence.epoch = epoch
        for images, _, weights in sequence:
            held.append(images)
            steps.append((images[:, 0, 0, 0].tolist(), weights))
    assert time.monotonic() - began < 20
    release.set()  # now the threads write to their frames
    time.sleep(0.2)
    for number, (images, (before, weights)) in enumerate(zip(held, steps, strict=True)):
        assert images[:, 0, 0, 0].tolist() == before
        for at, asked in enumerate(range(number % 5 * 8, number % 5 * 8 + 8)):
            assert (weights[at] == 0) == (asked in (3, 12, 13))
            assert before[at] == asked or weights[at] == 0
            assert before[at] not in (3, 12, 13)
    assert sorted(line["sample"] for line in lines(file)) == [3, 12, 13]
    assert {line["reason"] for line in lines(file)} == {"it took longer than 0.3 s to decode"}


def test_under_raise_an_image_that_takes_too_long_is_an_error_with_its_name(make, hang):
    hang[0](3)
    sequence = make(shuffle=False, decode_timeout=0.3)
    for _ in range(2):
        with pytest.raises(SampleError, match=r"^rank 0: cannot read sample 3, .*longer than 0.3 s to decode; mend"):
            sequence[0]
    assert sequence[1][0][0, 0, 0, 0] == 8


def test_threads_that_hang_are_few(make, hang, threads):
    hang[0](*range(20))
    sequence = make(on_bad="weight0", shuffle=False, decode_timeout=0.1, threads=2)
    with pytest.raises(ReadTimeout, match="9 threads have each been decoding one image for more than 0.1 s") as caught:
        shown(sequence)
    assert documented(str(caught.value))
    assert len(threads()) <= 9 + 3


def test_a_slow_image_within_its_time_is_a_picture(make, hang):
    stuck, release = hang
    stuck(3)
    sequence = make(shuffle=False, decode_timeout=30.0)
    threading.Timer(0.3, release.set).start()
    assert sequence[0][0][3].min() == 255


def test_the_limit_is_at_most_half_of_the_batchs(make, hang):
    hang[0](3)
    began = time.monotonic()
    assert make(on_bad="weight0", shuffle=False, timeout=1.0)[0][2][3] == 0
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "1", True])
def test_a_limit_that_makes_no_sense_is_refused(limit, make):
    with pytest.raises(ConfigError, match="decode_timeout must be"):
        make(decode_timeout=limit)


def test_an_unknown_policy_is_refused(make):
    with pytest.raises(ConfigError, match="on_bad must be one of raise, replace, weight0, not 'skip'"):
        make(on_bad="skip")
