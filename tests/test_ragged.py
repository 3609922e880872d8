"""Sequences of different lengths: given as lists, arrays or files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.errors import ConfigError
from dist_loader.ragged import Ragged, ragged_of

SEQUENCES = [[3, 1, 2], [], [7], [2**31 - 1, -(2**31)], []]


def listed(ragged: Ragged) -> list:
    return [ragged.values[slice(*ragged.where(number))].tolist() for number in range(len(ragged))]


def pair(sequences: list) -> tuple:
    return np.concatenate([np.array(s, np.int64) for s in sequences]), np.cumsum([0, *map(len, sequences)])


@pytest.mark.parametrize("kind", ["lists", "arrays", "objects", "pair", "files", "folder"])
def test_all_ways_to_give_them_are_the_same(kind: str, tmp_path: Path) -> None:
    made: object = SEQUENCES
    if kind == "arrays":
        made = [np.array(s, np.int32) for s in SEQUENCES]
    elif kind == "objects":  # as keras.datasets.imdb has them
        made = np.array(SEQUENCES, object)
    elif kind == "pair":
        made = pair(SEQUENCES)
    elif kind == "files":
        for name, array in zip("vo", pair(SEQUENCES), strict=True):
            np.save(tmp_path / f"{name}.npy", array)
        made = tmp_path / "v.npy", str(tmp_path / "o.npy")
    elif kind == "folder":
        made = dl.save_tokens(tmp_path / "saved", iter(SEQUENCES))
    ragged = ragged_of(made, "tokens", "iu")
    assert listed(ragged) == SEQUENCES
    assert len(ragged) == 5
    assert ragged.longest == (0, 3)
    assert ragged.lengths(np.array([[3, 1], [0, 2]])).tolist() == [[2, 0], [3, 1]]


def test_rows_of_an_array_are_sequences_of_one_length() -> None:
    assert listed(ragged_of(np.arange(6).reshape(3, 2), "tokens", "iu")) == [[0, 1], [2, 3], [4, 5]]


def test_files_are_mapped_and_not_read(tmp_path: Path) -> None:
    values = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.int32, (1 << 31,))  # 8 GiB, of holes
    values[-3:] = 5
    del values
    np.save(tmp_path / "o.npy", [0, (1 << 31) - 3, 1 << 31])
    ragged = ragged_of((tmp_path / "v.npy", tmp_path / "o.npy"), "tokens", "iu")
    begin, end = ragged.where(1)
    assert ragged.values[begin:end].tolist() == [5, 5, 5]


@given(
    st.lists(st.lists(st.integers(0, 2**16 - 1), max_size=9), max_size=30),
    st.sampled_from(["int32", "uint16", "int64", "float32"]),
)
def test_what_was_saved_is_there(tmp_path_factory: pytest.TempPathFactory, sequences: list, dtype: str) -> None:
    folder = dl.save_tokens(tmp_path_factory.mktemp("saved") / "tokens", iter(sequences), dtype)
    ragged = ragged_of(folder, "tokens", "iuf")
    assert listed(ragged) == sequences
    assert ragged.values.dtype == dtype
    assert np.load(folder / "offsets.npy").dtype == np.int64


def test_values_may_be_vectors(tmp_path: Path) -> None:
    sequences = [np.zeros((0, 3)), np.arange(6.0).reshape(2, 3), [], [[1.5, 2.5, 3.5]]]
    ragged = ragged_of(dl.save_tokens(tmp_path / "v", sequences, "float32"), "targets", "iuf")
    assert ragged.values.shape == (3, 3)
    assert listed(ragged) == [[], [[0, 1, 2], [3, 4, 5]], [], [[1.5, 2.5, 3.5]]]
    assert listed(ragged_of([s for s in sequences if len(s)], "targets", "iuf")) == [s for s in listed(ragged) if s]


@pytest.mark.parametrize(
    ("sequences", "dtype", "message"),
    [
        ([[1], [2.5]], "int32", r"sequence 1 must be a sequence of whole numbers, not \[2.5\]"),
        ([[1], [70000]], "uint16", "sequence 1 has numbers from 70000 to 70000, which uint16 cannot hold"),
        ([[1], [2**40]], "int32", "sequence 1 has numbers that do not fit in 32 bits"),
        ([[1], 5], "int32", "sequence 1 must be a sequence"),
        ([[1], "abc"], "int32", "sequence 1 must be a sequence"),
        ([[1], [[2, 3]]], "int32", r"sequence 1 has values of shape \(2,\), those before \(\)"),
        ([[1], [[2], [3, 4]]], "int32", "sequence 1 must be a sequence of numbers"),
        ([[True]], "int32", "sequence 0 must be a sequence"),
    ],
)
def test_what_cannot_be_saved_leaves_nothing_behind(sequences: list, dtype: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        dl.save_tokens(tmp_path / "new", sequences, dtype)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    dl.save_tokens(tmp_path / "a", [[1]])
    with pytest.raises(ConfigError, match="is there already"):
        dl.save_tokens(tmp_path / "a", [[2]])
    assert listed(ragged_of(tmp_path / "a", "tokens", "iu")) == [[1]]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (([1, 2, 3], [0, 2, 1, 3]), "tokens: by its offsets, sequence 1 begins at 2 and ends at 1"),
        (([1, 2, 3], [0, 2]), r"must begin with 0 and end with the number of values, 3, not \[0\] and \[2\]"),
        (([1, 2, 3], [1, 3]), "must begin with 0"),
        (([1, 2, 3], [0.0, 3.0]), "offsets of integers"),
        (([1, 2, 3], []), "offsets"),
        (([1.0, 2.0], [0, 2]), "tokens must hold whole numbers, not float64"),
        (([[1], [2.5]]), r"tokens\[1\] must be a sequence of whole numbers"),
        (([[1], [2**31]]), r"tokens\[1\] has numbers that do not fit in 32 bits"),
        (([1], [0], [1]), "not 3"),
        (("no-such-folder"), "tokens: no folder 'no-such-folder' with values.npy and offsets.npy; save_tokens"),
        ((5), "tokens must be a folder"),
    ],
)
def test_what_is_none_is_an_error(given_: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ragged_of(given_, "tokens", "iu")


def test_files_that_are_no_arrays_are_errors(tmp_path: Path) -> None:
    folder = dl.save_tokens(tmp_path / "saved", SEQUENCES)
    values = folder / "values.npy"
    whole = values.read_bytes()
    for content in (b"", whole[:-4], b"x" * 500, pickle.dumps([1])):
        values.write_bytes(content)
        with pytest.raises(ConfigError, match="tokens: cannot open .*values.npy"):
            ragged_of(folder, "tokens", "iu")
    np.save(values, np.array([print], object), allow_pickle=True)
    with pytest.raises(ConfigError, match="cannot open"):
        ragged_of(folder, "tokens", "iu")
    np.savez(tmp_path / "a.npz", values=[1])
    with pytest.raises(ConfigError, match="is an .npz file, which cannot be mapped"):
        ragged_of((tmp_path / "a.npz", folder / "offsets.npy"), "tokens", "iu")
    values.unlink()
    os.mkfifo(values)
    with pytest.raises(ConfigError, match="no file"):
        ragged_of(folder, "tokens", "iu")


def test_lengths_that_do_not_agree_are_told_with_the_sequence() -> None:
    tokens, others = (
        ragged_of(given, what, "iu") for given, what in (([[1], [2, 3]], "tokens"), ([[1], [2]], "targets"))
    )
    with pytest.raises(ConfigError, match="sequence 1 has 1 values in targets, and 2 in tokens"):
        others.require_lengths_of(tokens)
    with pytest.raises(ConfigError, match="targets has 1 sequences, and tokens 2"):
        ragged_of([[1]], "targets", "iu").require_lengths_of(tokens)
