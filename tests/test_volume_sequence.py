"""One .npy file per sample: what Keras gets of ids, labels by id, and files by a template."""

import contextlib
import io
import json
import os
import struct
from collections import Counter

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.errors import ConfigError, SampleError
from dist_loader.index.ids import index_of_ids
from dist_loader.readers.npy import NpyError, array_in

ALONE = dl.World(0, 1, 0, 1)
IDS = [f"id-{number}" for number in range(1, 31)]
PARTITION = {"train": IDS[:21], "validation": IDS[21:]}
LABELS = {one: number % 3 for number, one in enumerate(IDS)}


def volume(one, shape=(4, 5, 6), dtype=np.float32):
    return (int(one.split("-")[1]) + np.arange(np.prod(shape)) / 1000).reshape(shape).astype(dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("volumes")
    for one in IDS:
        np.save(made / f"{one}.npy", volume(one))
    return made


@pytest.fixture
def make(threads):
    """Makes sequences, which are closed at the end of the test."""
    made = []

    def make(*args, world=ALONE, **kwargs):
        made.append(dl.VolumeSequence(*args, **{"host_batch": 64, "threads": 2, **kwargs}, world=world))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def test_partition_and_labels_are_taken_as_they_are(folder, make):
    train = make(PARTITION["train"], LABELS, folder / "{id}.npy", device_batch=8, add_channel=True)
    assert len(train) == 3
    for step, (x, y, _) in enumerate(train):
        ids = [IDS[number] for number in train.numbers(0, step)]
        np.testing.assert_array_equal(x, np.stack([volume(one)[..., None] for one in ids]))
        assert y.tolist() == [LABELS[one] for one in ids]
    assert train.name(3) == str(folder / "id-4.npy")


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize("how", ["C", "F", "big endian", "version 2"])
def test_volumes_of_any_rank_and_layout(shape, how, make, tmp_path):
    for one in IDS[:6]:
        array = np.asarray(volume(one, shape), order="F" if how == "F" else "C")
        with (tmp_path / f"{one}.npy").open("wb") as file:
            array = array.astype(">f4") if how == "big endian" else array
            np.lib.format.write_array(file, array, (2, 0) if how == "version 2" else None)
    sequence = make(IDS[:6], None, tmp_path / "{id}.npy", device_batch=6)
    assert sequence[0][0].dtype == np.dtype("=f4")
    np.testing.assert_array_equal(sequence[0][0], [volume(IDS[n], shape) for n in sequence.numbers(0, 0)])


def test_types_are_kept_and_converted_only_if_asked_for(make, tmp_path):
    for dtype in ("i2", "f2", "f8", "u1"):
        np.save(tmp_path / f"{dtype}.npy", np.full((2, 2), 3, dtype))
    where = tmp_path / "{id}.npy"
    assert make(["i2"], None, where, device_batch=1)[0][0].dtype == np.int16
    assert make(["f8"], None, where, device_batch=1)[0][0].dtype == np.float32  # as in Keras's fit
    assert make(["i2", "f8"], None, where, device_batch=2, dtype="f4")[0][0].tolist() == [[[3, 3]] * 2] * 2
    with pytest.raises(SampleError, match=r"f2.npy.*an array of float16, and int16 is that of '.*i2.npy'; give dtype"):
        _ = make(["i2", "f2"], None, where, device_batch=2)[0]
    with pytest.raises(SampleError, match="an array of float64, which does not become int16 without loss"):
        _ = make(["f8"], None, where, device_batch=1, dtype="i2")[0]


@pytest.mark.parametrize("y", [[0.5] * 30, np.arange(30) % 2 == 0, {one: [1.0, 0.0] for one in IDS}])
def test_targets_may_be_any_numbers(y, folder, make):
    sequence = make(IDS, y, folder / "{id}.npy", device_batch=10)
    wanted = np.asarray([y[one] for one in IDS] if isinstance(y, dict) else y)[sequence.numbers(0, 1)]
    np.testing.assert_array_equal(sequence[1][1], wanted)
    assert sequence[1][1].dtype == (np.bool_ if wanted.dtype == bool else np.float32)


def test_labels_become_vectors_that_agree_in_all_parts(folder, make):
    valid = make(
        ["id-1", "id-2"], LABELS, folder / "{id}.npy", device_batch=2, labels="one-hot", classes=3, shuffle=False
    )
    assert valid[0][1].tolist() == [[1, 0, 0], [0, 1, 0]]


@given(samples=st.integers(1, 30), device_batch=st.integers(1, 9), size=st.integers(1, 4), epoch=st.integers(0, 2))
def test_all_ranks_together_see_every_volume_once(folder, samples, device_batch, size, epoch):
    seen, lengths = Counter(), set()
    for rank in range(size):
        sequence = dl.VolumeSequence(
            IDS[:samples],
            LABELS,
            folder / "{id}.npy",
            device_batch=device_batch,
            threads=1,
            world=dl.World(rank, size, rank, size),
        )
        sequence.epoch = epoch
        lengths.add(len(sequence))
        for x, _, *weights in sequence:
            real = ~np.signbit(weights[0]) if weights else np.ones(len(x), bool)
            seen.update(x[real, 0, 0, 0].astype(int).tolist())
        sequence.close()
    assert seen == Counter(range(1, samples + 1))
    assert len(lengths) == 1


def test_a_training_and_its_validation(folder, threads):
    strategy = dl.init()
    train, valid = (
        dl.VolumeSequence(PARTITION[part], LABELS, folder / "{id}.npy", device_batch=8, strategy=strategy)
        for part in ("train", "validation")
    )
    model = keras.Sequential([keras.Input((4, 5, 6)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = strategy.fit(model, train, validation_data=valid, epochs=2, verbose=0)
    x, y = np.stack([volume(one) for one in PARTITION["validation"]]), [LABELS[one] for one in PARTITION["validation"]]
    wanted = model.evaluate(x, np.array(y), return_dict=True, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(wanted["loss"], rel=1e-5)
    np.testing.assert_allclose(strategy.predict(model, valid), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- bad files


def npy(array, **kwargs):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), **kwargs)
    return file.getvalue()


def header(text, length=None):
    """A .npy file of version 1 with a header of one's own."""
    text = text.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) if length is None else length) + text


GOOD = npy(np.arange(6.0).reshape(2, 3))
DAMAGED = [
    (b"", "an empty file"),
    (b"\x89PNG\r\n", "not a .npy file"),
    (GOOD[:7], "unknown version"),
    (GOOD[:9], "cut off in its header"),
    (GOOD[:60], "cut off in its header"),
    (GOOD[:-1], r"cut off: 47 of the 48 bytes of an array of shape \(2, 3\)"),
    (GOOD[:6] + b"\x03\x00" + GOOD[8:], "unknown version, 3.0"),
    (npy([{}]), "Python objects, which are never loaded"),
    (npy(np.zeros(2, [("a", "f4"), ("b", "O")])), "Python objects, which are never loaded"),
    (npy(np.zeros(2, [("a", "f4")])), "the fields a"),
    (npy(["text"]), "not of numbers"),
    (header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }"), "impossible shape"),
    (header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999, 9), }"), "cut off: 0 of the"),
    (header("{'descr': '<f8', 'fortran_order': False, 'shape': 3, }"), "damaged header: shape is not valid"),
    (header("{'descr': 'xyz', 'fortran_order': False, 'shape': (3,), }"), "damaged header"),
    (header("__import__('os').abort()"), "damaged header"),
    (header("(" * 9000), "damaged header"),
    (header("-" * 9000 + "1"), "damaged header"),
    (header("[" * 5000 + "]" * 4999), "damaged header"),
    (header("x" * 20000), "header of 20000 bytes, more than the 10000"),
    (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 100, "header of 4294967295 bytes"),
]


@pytest.mark.parametrize(("content", "said"), DAMAGED)
def test_damaged_content_is_refused_in_words(content, said):
    for given_ in (content, memoryview(content)):
        with pytest.raises(NpyError, match=said):
            array_in(given_)


@given(st.data())
def test_no_mutation_of_a_file_does_anything_but_be_refused(data):
    content = bytearray(GOOD)
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NpyError):
        array_in(bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize("on_bad", ["replace", "weight0"])
def test_bad_files_are_named_and_another_takes_their_place(on_bad, folder, make, tmp_path):
    for one in IDS:
        (tmp_path / f"{one}.npy").write_bytes((folder / f"{one}.npy").read_bytes())
    np.save(tmp_path / "id-3.npy", volume("id-3", (4, 5, 5)))
    np.save(tmp_path / "id-7.npy", np.array([{}]), allow_pickle=True)
    os.truncate(tmp_path / "id-11.npy", 300)
    (tmp_path / "id-15.npy").unlink()
    (tmp_path / "id-16.npy").unlink()
    os.mkfifo(tmp_path / "id-16.npy")
    bad_file = tmp_path / "bad_samples.jsonl"
    sequence = make(IDS, LABELS, tmp_path / "{id}.npy", device_batch=10, on_bad=on_bad, bad_budget=9, bad_file=bad_file)
    for x, y, *weights in sequence:
        shown = x[:, 0, 0, 0].astype(int)
        assert not {3, 7, 11, 15, 16} & set(shown.tolist())
        if on_bad == "replace":
            assert y.tolist() == [LABELS[f"id-{number}"] for number in shown]
        else:
            assert len(weights) == 1
    assert sequence.missing(0) == {2, 6, 10, 14, 15}
    reasons = {line["sample"]: line["reason"] for line in map(json.loads, bad_file.read_text().splitlines())}
    first = f"and (4, 5, 6) is that of '{tmp_path / 'id-1.npy'}'"
    assert reasons[2] == f"an array of shape (4, 5, 5), {first}"
    assert "never loaded" in reasons[6]
    assert "cut off: 172 of the 480 bytes" in reasons[10]
    assert reasons[14] == "No such file or directory"
    assert "pipe" in reasons[15]


def test_with_a_shape_and_a_type_no_file_is_read_beforehand(make):
    sequence = make(["a"], None, "/nowhere/{id}.npy", device_batch=1, shape=(2,), dtype="f4")
    with pytest.raises(SampleError, match="rank 0: cannot read sample 0, '/nowhere/a.npy': No such file"):
        _ = sequence[0]


# -------------------------------------------------------------------------------------------------- ids and arguments


@pytest.mark.parametrize(
    ("ids", "files", "paths"),
    [
        (["a", "b"], "/data/{id}.npy", ["/data/a.npy", "/data/b.npy"]),
        ([1, np.int64(2)], "/data/scan-{id}", ["/data/scan-1", "/data/scan-2"]),
        (["p/1"], "/data/{id}/{id}.npy", ["/data/p/1/p/1.npy"]),
        (["a"], "/{id}", ["/a"]),
        (["a.b", "..."], "/d/{id}", ["/d/a.b", "/d/..."]),
        (["{0.__class__}", "%s"], "/d/{id}", ["/d/{0.__class__}", "/d/%s"]),
        (["a"], "s3://bucket/folder/x-{id}.npy", ["s3://bucket/folder/x-a.npy"]),
        (["/one/a.npy", "/two/b.npy"], "{id}", ["/one/a.npy", "/two/b.npy"]),
        (["ä\udcff"], "/d/{id}", ["/d/ä\udcff"]),
    ],
)
def test_paths_of_ids(ids, files, paths):
    index = index_of_ids(ids, files)
    assert [index.path(number) for number in range(len(index))] == paths


def test_a_relative_template_is_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert index_of_ids(["a"], "data/{id}.npy").path(0) == f"{tmp_path}/data/a.npy"
    assert index_of_ids(["a"], "x{id}.npy").path(0) == f"{tmp_path}/xa.npy"


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"ids": []}, "there are no ids"),
        ({"ids": "id-1"}, r'ids must be a list, such as partition\["train"\]'),
        ({"ids": PARTITION}, "ids must be a list"),
        ({"ids": set(IDS)}, "ids must be a list"),
        ({"ids": ["../secret"]}, "'../secret' would lead out of the folder"),
        ({"ids": ["a/../../b"]}, "would lead out"),
        ({"ids": ["/etc/passwd"]}, "would lead out"),
        ({"ids": ["."]}, "would lead out"),
        ({"ids": [""]}, "an id must be a text or a whole number, not ''"),
        ({"ids": ["a\0b"]}, "an id must be"),
        ({"ids": [1.5]}, "not 1.5"),
        ({"ids": [None]}, "not None"),
        ({"files": "data.npy"}, 'a path with "{id}" in it'),
        ({"files": "{id.__class__}.npy"}, "no other braces"),
        ({"files": "{id!r}.npy"}, "no other braces"),
        ({"files": "{id}/{}.npy"}, "no other braces"),
        ({"y": {"id-1": 0}}, "y has nothing for the id 'id-2'"),
        ({"y": [1, 2]}, r"one row for each of the 30 ids, and its shape is \(2,\)"),
        ({"y": dict.fromkeys(IDS, "cat")}, "y must be numbers"),
        ({"y": {one: [0] * (1 + len(one) % 2) for one in IDS}}, "y must be numbers, or arrays of one shape"),
        ({"y": LABELS, "classes": 2}, "y has the label 2, of 2 classes"),
        ({"shape": (4, 0)}, "shape must be whole numbers above 0"),
        ({"dtype": "text"}, "dtype must be a type of numbers"),
        ({"dtype": object}, "dtype must be a type of numbers"),
        (
            {"files": "/nowhere/{id}"},
            "from the first, '/nowhere/id-1': No such file or directory; give shape and dtype",
        ),
        ({"local_copy": "/tmp"}, "local_copy='/tmp' is for remote addresses"),
    ],
)
def test_what_cannot_be_is_refused_by_name(kwargs, said, folder, make):
    given_ = {"ids": IDS, "y": None, "files": folder / "{id}.npy", "device_batch": 2} | kwargs
    with pytest.raises(ConfigError, match=said):
        make(given_.pop("ids"), given_.pop("y"), given_.pop("files"), **given_)


def test_the_fingerprint_is_of_ids_and_targets(folder, make):
    def fingerprint(ids, y):
        return make(ids, y, folder / "{id}.npy", device_batch=5).samples.fingerprint

    same = [fingerprint(IDS, LABELS), fingerprint(tuple(IDS), [LABELS[one] for one in IDS])]
    others = [fingerprint(IDS[::-1], LABELS), fingerprint(IDS, LABELS | {"id-9": 1}), fingerprint(IDS, None)]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 4
