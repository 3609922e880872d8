"""A user's own reader: what it writes is what Keras gets, and what it gets wrong is told."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import dist_loader as dl
from dist_loader.errors import ConfigError, DistLoaderError, ReadTimeout, SampleError
from dist_loader.world import World

ALONE = World(rank=0, size=1, local_rank=0, local_size=1)
SAMPLES = 21


class Pairs:
    """Samples of two arrays that tell their number; a test says what is different."""

    samples = SAMPLES
    fingerprint = "pairs"
    shape: ClassVar[Any] = {"image": (2, 3), "label": ()}
    dtype: ClassVar[Any] = {"image": np.float32, "label": np.int32}

    def __init__(self, **different: Any) -> None:
        for name, value in different.items():
            setattr(self, name, value)

    def read(self, numbers: np.ndarray, epoch: int, out: Any) -> None:
        out["image"][...] = numbers[:, None, None] + 100 * epoch
        out["label"][...] = numbers

    def name(self, number: int) -> str:
        return f"pair {number}"


class One(Pairs):
    """Samples of one array."""

    shape, dtype = (3,), "float32"

    def read(self, numbers: np.ndarray, epoch: int, out: np.ndarray) -> None:
        out[...] = numbers[:, None]


@pytest.fixture
def make(threads: object) -> Iterator[Callable[..., dl.ReaderSequence]]:
    made = []

    def make(reader: Any, device_batch: int = 4, **options: Any) -> dl.ReaderSequence:
        made.append(dl.ReaderSequence(reader, device_batch, 2 * SAMPLES, **{"world": ALONE, "threads": 2, **options}))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def test_arrays_by_name_become_inputs_and_targets(make: Callable) -> None:
    weights = np.linspace(0, 1, SAMPLES)
    sequence = make(Pairs(), x={"a": "image"}, y=("label", weights), shuffle=False, remainder="wrap")
    for epoch in (0, 1):
        sequence.epoch = epoch
        for step in range(len(sequence)):
            x, y = sequence[step]
            numbers = sequence.numbers(epoch, step)
            assert x["a"].shape == (4, 2, 3)
            assert (x["a"] == (numbers + 100 * epoch)[:, None, None]).all()
            assert y[0].tolist() == numbers.tolist()
            assert y[1].tolist() == weights[numbers].tolist()
    assert sequence.name(3) == "pair 3"


def test_what_is_no_target_is_an_input(make: Callable) -> None:
    assert make(Pairs(), y="label")[0][0].shape == (4, 2, 3)
    assert set(make(Pairs())[0][0]) == {"image", "label"}
    assert make(One())[0][0].shape == (4, 3)
    x, y, *_ = make(One(), y=list(range(SAMPLES)))[0]
    assert x[:, 0].tolist() == y.tolist()


@pytest.mark.parametrize(("size", "device_batch"), [(1, 4), (3, 2), (4, 8)])
def test_every_sample_once_an_epoch_on_any_number_of_ranks(make: Callable, size: int, device_batch: int) -> None:
    seen: Counter[int] = Counter()
    for rank in range(size):
        sequence = make(Pairs(), device_batch, y="label", world=World(rank, size, rank, size))
        for _, labels, *weights in (sequence[step] for step in range(len(sequence))):
            fill = np.signbit(weights[0]) if weights else np.zeros(len(labels), bool)
            seen.update(labels[~fill].tolist())
    assert seen == Counter(range(SAMPLES))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"y": "lable"}, "y names 'lable', which the reader does not have"),
        ({"x": {"a": "photo"}}, "x names 'photo'"),
        ({"weight": "w"}, "weight names 'w', which the reader does not have; it has image, label"),
        ({"y": ("image", "label")}, "all of the reader's arrays are targets"),
        ({"y": np.zeros(20)}, "y must have one row for each of the 21 samples, and has 20"),
        ({"y": [[1, 2], [3]]}, "y has rows of different lengths"),
        ({"y": ["a"] * SAMPLES}, "y must be numbers, not <U1"),
        ({"y": np.array([None] * SAMPLES)}, "y must be numbers, not object"),
        ({"y": 7}, "y must be a name, or an array"),
    ],
)
def test_names_and_columns_that_do_not_fit(options: dict, words: str, make: Callable) -> None:
    with pytest.raises(ConfigError, match=words):
        make(Pairs(), **options)


@pytest.mark.parametrize(
    ("different", "words"),
    [
        ({"samples": 0}, "samples of Pairs must be a whole number of at least 1, not 0"),
        ({"samples": 2.0}, "samples of Pairs"),
        ({"samples": lambda: 3}, "samples of Pairs"),
        ({"shape": {}, "dtype": {}}, "dictionaries of the same names"),
        ({"dtype": {"image": np.float32}}, "dictionaries of the same names"),
        ({"dtype": np.float32}, "dictionaries of the same names"),
        ({"shape": 3}, "shape of Pairs must be a tuple"),
        ({"shape": (None,), "dtype": np.float32}, "shape of Pairs must be a tuple"),
        ({"shape": {"image": (0,), "label": ()}}, r"shape\['image'\] of Pairs must be a tuple"),
        ({"dtype": {"image": object, "label": np.int32}}, r"dtype\['image'\] of Pairs must be a type of numbers"),
        ({"dtype": {"image": "a word", "label": np.int32}}, r"dtype\['image'\]"),
        ({"dtype": {"image": None, "label": np.int32}}, r"dtype\['image'\]"),
    ],
)
def test_readers_that_do_not_say_what_they_read(different: dict, words: str, make: Callable) -> None:
    with pytest.raises(ConfigError, match=words):
        make(Pairs(**different))


@pytest.mark.parametrize("lacks", ["samples", "fingerprint", "shape", "dtype", "read", "name"])
def test_readers_that_lack_something(lacks: str, make: Callable) -> None:
    members = {name: value for name, value in vars(Pairs).items() if not name.startswith("__") and name != lacks}
    with pytest.raises(ConfigError, match=f"Lacking has no '{lacks}', and a reader needs it"):
        make(type("Lacking", (), members)())


def misshapen(numbers: np.ndarray, epoch: int, out: Any) -> None:
    out["image"][...] = np.zeros((len(numbers), 7))


def put_beside(numbers: np.ndarray, epoch: int, out: Any) -> None:
    out["image"] = np.zeros((len(numbers), 2, 3), np.float32)


def returning(numbers: np.ndarray, epoch: int, out: Any) -> Any:
    return np.zeros((len(numbers), 2, 3))


def other_s_error(numbers: np.ndarray, epoch: int, out: Any) -> None:
    raise SampleError(99, "file", "gone")


def wrong(numbers: np.ndarray, epoch: int, out: Any) -> None:
    {}["key"]


@pytest.mark.parametrize("on_bad", ["raise", "replace"])
@pytest.mark.parametrize(
    ("read", "words"),
    [
        (misshapen, r"ValueError: could not broadcast .*\(4,7\)|\(\d,7\)"),
        (put_beside, r"TypeError: .*; write with out\[\"name\"\]\[...\] = values"),
        (returning, "read returned a ndarray; it is to write into `out`"),
        (other_s_error, "a SampleError for sample 99, which was not asked for"),
        (wrong, "KeyError: 'key'"),
    ],
)
def test_mistakes_in_a_reader_end_the_training_whatever_the_policy(
    read: Callable, words: str, on_bad: str, make: Callable
) -> None:
    sequence = make(Pairs(read=read), y="label", on_bad=on_bad)
    with pytest.raises(DistLoaderError, match="Pairs failed on samples? .*" + words) as caught:
        sequence[0]
    assert not isinstance(caught.value, SampleError)


class Careless(Pairs):
    """Looks for bad samples after it has written some arrays, and before others."""

    def read(self, numbers: np.ndarray, epoch: int, out: Any) -> None:
        out["label"][...] = -1
        for number in numbers.tolist()[::-1]:
            if number in (5, 6, 13):
                raise SampleError(np.int64(number), Path(f"/data/{number}"), "torn")  # type: ignore[arg-type]
        super().read(numbers, epoch, out)


@pytest.mark.parametrize("on_bad", ["raise", "replace", "weight0"])
def test_bad_samples_are_treated_as_asked_for(on_bad: str, make: Callable, tmp_path: Path) -> None:
    bad_file = tmp_path / "bad.jsonl"
    sequence = make(Careless(), 21, y="label", on_bad=on_bad, bad_file=bad_file, shuffle=False, threads=1)
    if on_bad == "raise":
        with pytest.raises(SampleError, match=r"rank 0: cannot read sample (5|6|13), '/data/(5|6|13)': torn"):
            sequence[0]
        return
    images, labels, *weights = sequence[0]
    good = np.setdiff1d(np.arange(SAMPLES), [5, 6, 13])
    assert labels[good].tolist() == good.tolist()
    assert (images == labels[:, None, None]).all()
    assert not set(labels.tolist()) & {5, 6, 13, -1}
    assert not weights or np.flatnonzero(weights[0] == 0).tolist() == [5, 6, 13]
    noted = [json.loads(line)["path"] for line in bad_file.read_text().splitlines()]
    assert sorted(noted) == ["/data/13", "/data/5", "/data/6"]


def test_a_reader_that_hangs_is_an_error(make: Callable) -> None:
    leave = threading.Event()

    def hang(numbers: np.ndarray, epoch: int, out: Any) -> None:
        leave.wait(30)

    sequence = make(Pairs(read=hang), y="label", timeout=0.3)
    try:
        with pytest.raises(ReadTimeout, match="rank 0"):
            sequence[0]
    finally:
        leave.set()


def test_other_data_have_another_fingerprint(make: Callable) -> None:
    labels = np.arange(SAMPLES)
    prints = {
        make(reader, y=y).samples.fingerprint
        for reader, y in [
            (Pairs(), "label"),
            (Pairs(fingerprint="b"), "label"),
            (Pairs(), labels),
            (Pairs(), labels[::-1]),
        ]
    }
    assert len(prints) == 4
