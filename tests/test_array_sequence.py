"""Arrays as samples: what Keras gets of rows in memory, in maps, in .npy and .npz files, and of h5py."""

import json
import os
import time
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
import dist_loader.frames
from dist_loader.errors import ConfigError, SampleError

ALONE = dl.World(0, 1, 0, 1)
ROW = (4, 75)  # 1,200 bytes of float32: enough to be read by its place in the file


def of(rank, size):
    return dl.World(rank, size, rank, size)


def numbered(rows, shape=ROW, dtype=np.float32):
    """Row n holds n, n + 1, n + 2, ..."""
    size = int(np.prod(shape))
    return (np.arange(rows)[:, None] + np.arange(size)).reshape(rows, *shape).astype(dtype)


def saved(folder, array, how):
    """An array in each of the ways that a user may give one."""
    path = folder / f"{how}.npy"
    if how == "memory":
        return array
    if how == "list":
        return array.tolist()
    if how == "reversed":
        return array[::-1].copy()[::-1]
    if how == "strided":
        return np.repeat(array, 2, axis=0)[::2]
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "big endian":
        return array.astype(array.dtype.newbyteorder(">"))
    if how.endswith("path"):
        stored = {"fortran path": np.asfortranarray, "big endian path": lambda a: a.astype(a.dtype.newbyteorder(">"))}
        np.save(path, stored.get(how, np.asarray)(array))
        return path if how == "path" else str(path)
    if how.endswith("map"):
        np.save(path, array)
        return np.load(path, mmap_mode="r+" if how == "writable map" else "r")[
            slice(None) if how == "part map" else ...
        ]
    if how == "npz":
        np.savez(folder / "a.npz", one=np.zeros(3), two=array)
        return str(folder / "a.npz" / "two")
    if how == "only member":
        np.savez(folder / "b.npz", array)
        return folder / "b.npz"
    with h5py.File(folder / "c.h5", "w") as file:
        file["x"] = array
    return h5py.File(folder / "c.h5")["x"]


WAYS = [
    "memory",
    "list",
    "reversed",
    "strided",
    "fortran",
    "big endian",
    "path",
    "fortran path",
    "big endian path",
    "map",
]
WAYS += ["writable map", "part map", "npz", "only member", "h5py"]


@pytest.fixture
def make(threads):
    """Makes sequences, which are closed at the end of the test."""
    made = []

    def make(*args, world=ALONE, **kwargs):
        made.append(dl.ArraySequence(*args, **{"host_batch": 64, "threads": 2, **kwargs}, world=world))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def rows_seen(sequence):
    """The numbers of the real rows of an epoch, in order, by what x shows."""
    seen = []
    for batch in sequence:
        real = ~np.signbit(batch[2]) if len(batch) == 3 else np.ones(len(batch[0]), bool)
        seen += batch[0].reshape(len(real), -1)[real, 0].astype(int).tolist()
    return seen


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("shape", [ROW, (3,), ()], ids=["large rows", "small rows", "no axes"])
@pytest.mark.parametrize("how", WAYS)
def test_every_way_to_give_an_array_gives_its_rows(how, shape, shuffle, make, tmp_path):
    array = numbered(23, shape)
    sequence = make(saved(tmp_path, array, how), np.arange(23), device_batch=5, shuffle=shuffle)
    for step, (x, y, _) in enumerate(sequence):
        numbers = sequence.numbers(0, step)
        assert x.dtype == np.float32
        assert x.ctypes.data % 64 == 0
        np.testing.assert_array_equal(x, array[numbers])
        np.testing.assert_array_equal(y, numbers)


@pytest.mark.parametrize("stored", ["u1", "i2", "i8", "?", "f2", "f4", "f8", "c8", ">u2", ">f8"])
@pytest.mark.parametrize("how", ["memory", "path", "npz", "h5py"])
def test_types_stay_and_wide_floats_become_those_of_keras(stored, how, make, tmp_path):
    array = numbered(12, (300,), stored)
    (x,) = make(saved(tmp_path, array, how), device_batch=12)[0][:1]
    assert x.dtype == {"f8": "f4", ">f8": "f4", ">u2": "u2"}.get(stored, stored)
    assert x.dtype.isnative
    np.testing.assert_array_equal(x, array[make(array, device_batch=12).numbers(0, 0)])


def test_floats_stay_double_where_keras_has_doubles(make):
    keras.backend.set_floatx("float64")
    try:
        assert make(numbered(4, dtype="f8"), device_batch=2)[0][0].dtype == np.float64
    finally:
        keras.backend.set_floatx("float32")


def test_dictionaries_and_tuples_come_as_they_were_given(make, tmp_path):
    a, b, c = numbered(20), numbered(20, (2,)), numbered(20, ()) + 0.5
    sequence = make({"a": saved(tmp_path, a, "path"), "b": (b, c)}, ({"c": c}, a), device_batch=20)
    x, y = sequence[0]
    rows = sequence.numbers(0, 0)
    keras.tree.map_structure(
        np.testing.assert_array_equal, (x, y), ({"a": a[rows], "b": (b[rows], c[rows])}, ({"c": c[rows]}, a[rows]))
    )


@pytest.mark.parametrize("name", [None, "out"])
def test_labels_become_vectors_and_have_weights_by_class(name, make, tmp_path):
    labels = np.arange(20) % 3
    np.save(tmp_path / "y.npy", labels)
    for labels_given in (labels, labels.tolist(), tmp_path / "y.npy", np.load(tmp_path / "y.npy", mmap_mode="r")):
        y = labels_given if name is None else {name: labels_given}
        sequence = make(numbered(20), y, device_batch=20, labels="one-hot", classes=4, class_weight={2: 5.0})
        _, vectors, weights = sequence[0]
        rows = labels[sequence.numbers(0, 0)]
        vectors = vectors if name is None else vectors[name]
        np.testing.assert_array_equal(vectors, np.eye(4, dtype=np.float32)[rows])
        assert weights.tolist() == np.where(rows == 2, 5, 1).tolist()


def test_parts_of_samples_have_weights(make):
    weight = np.tile([1, 0, 2], (20, 1))
    *_, weights = make(numbered(20), numbered(20, (3,)), device_batch=8, weight=weight)[0]
    assert weights.tolist() == [[1, 0, 2]] * 8
    with pytest.raises(ConfigError, match="give sample_weight"):
        make(numbered(20), numbered(20), device_batch=8, weight=np.ones(20))


@given(
    samples=st.integers(1, 70),
    device_batch=st.integers(1, 9),
    size=st.integers(1, 5),
    epoch=st.integers(0, 3),
    remainder=st.sampled_from(["weight", "wrap"]),
)
def test_all_ranks_together_see_every_row_once(samples, device_batch, size, epoch, remainder):
    array, seen, lengths = numbered(samples, (2,)), [], set()
    for rank in range(size):
        sequence = dl.ArraySequence(
            array, array, device_batch=device_batch, world=of(rank, size), threads=1, remainder=remainder
        )
        sequence.epoch = epoch
        lengths.add(len(sequence))
        seen += rows_seen(sequence)
        sequence.close()
    assert len(lengths) == 1
    if remainder == "weight":
        assert sorted(seen) == list(range(samples))
    else:  # S1.4: whole batches, and every row at least once
        assert len(seen) == lengths.pop() * device_batch * size
        assert set(seen) == set(range(samples))


def test_a_global_batch_is_the_same_for_every_world(make, tmp_path):
    path = saved(tmp_path, numbered(60), "path")

    def steps(size):
        ranks = [make(path, device_batch=24 // size, world=of(rank, size), host_batch=24) for rank in range(size)]
        return [
            np.concatenate([batch[0][:, 0, 0] for batch in batches]).tolist() for batches in zip(*ranks, strict=True)
        ]

    assert steps(1) == steps(2) == steps(4)


def test_epochs_have_orders_of_their_own_and_seeds_repeat_them(make):
    def orders(seed):
        sequence = make(numbered(50), device_batch=10, seed=seed)
        found = []
        for sequence.epoch in range(3):
            found.append(rows_seen(sequence))
        return found

    first = orders(0)
    assert len({tuple(order) for order in [*first, *orders(1)]}) == 6
    assert first == orders(0)


# ---------------------------------------------------------------------------------------------------------- with Keras


def model_of(shape):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-9), "mse", metrics=["mae"])
    return model


def test_fit_evaluate_and_predict_see_what_keras_sees_of_the_arrays(tmp_path, threads):
    x, y = numbered(45), np.arange(45, dtype=np.float32)
    path = saved(tmp_path, x, "path")
    strategy = dl.init()
    ours, theirs = model_of(ROW), model_of(ROW)
    train = dl.ArraySequence(path, y, device_batch=8, shuffle=False, strategy=strategy)
    strategy.fit(ours, train, epochs=2, verbose=0)
    theirs.fit(x, y, batch_size=8, shuffle=False, epochs=2, verbose=0)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    valid = dl.ArraySequence(path, y, device_batch=8, strategy=strategy)
    told = strategy.evaluate(ours, valid)
    wanted = ours.evaluate(x, y, return_dict=True, verbose=0)
    assert told == pytest.approx(wanted, rel=1e-5)
    found = strategy.predict(ours, dl.ArraySequence(path, device_batch=8, strategy=strategy))
    np.testing.assert_allclose(found, ours.predict(x, verbose=0), rtol=1e-5)


def test_a_training_goes_on_in_the_middle_of_an_epoch(tmp_path, threads):
    path = saved(tmp_path, numbered(64), "path")
    y = np.arange(64, dtype=np.float32)
    strategy = dl.init()

    steps, ends = [], True

    class Steps(keras.callbacks.Callback):
        """Notes steps; ends the training in the middle of an epoch, once there is a checkpoint of such a step."""

        def on_train_batch_end(self, batch, logs=None):
            steps.append(batch)
            if ends and len(steps) > 8 and batch in range(3, 7):
                time.sleep(0.1)
                if not max((tmp_path / "run").glob("epoch-*.npz")).stem.endswith("0"):
                    raise RuntimeError("the machine is gone")

    def run(folder, *callbacks):
        model = model_of(ROW)
        train = dl.ArraySequence(path, y, device_batch=8, host_batch=32, strategy=strategy)
        strategy.fit(model, train, epochs=3, verbose=0, callbacks=callbacks, checkpoint_dir=folder, checkpoint_every=1)
        return model.get_weights(), int(model.optimizer.iterations)

    whole = run(None)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        run(tmp_path / "run", Steps())
    steps, ends = [], False
    again = run(tmp_path / "run", Steps())
    assert steps[0] > 0
    assert len(steps) < 16
    for one, other in zip([*whole[0], whole[1]], [*again[0], again[1]], strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------------------------------------------- bad input


def test_a_file_that_is_cut_off_while_it_is_read_is_bad_rows_and_no_signal(make, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, numbered(60))
    train = make(path, np.arange(60), device_batch=60, shuffle=False)
    map_of_it = make(np.load(path, mmap_mode="r"), np.arange(60), device_batch=60, shuffle=False)
    bad_file = tmp_path / "bad_samples.jsonl"
    others = make(
        path, np.arange(60), device_batch=10, host_batch=20, on_bad="replace", bad_budget=10, bad_file=bad_file
    )
    os.truncate(path, 128 + 55 * 1200 + 7)
    for sequence in (train, map_of_it):
        with pytest.raises(SampleError, match=r"rank 0: cannot read sample 55, .*x\.npy\[55\].*has been cut off"):
            list(sequence)
    shown = []
    for x, y in others:
        assert x[:, 0, 0].tolist() == y.tolist()
        shown += y.tolist()
    assert len(shown) == 60
    assert set(shown) == set(range(55))
    assert {json.loads(line)["sample"] for line in bad_file.read_text().splitlines()} == {55, 56, 57, 58, 59}


def test_a_bad_row_of_one_array_leaves_the_others_whole(make, tmp_path):
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for path in paths:
        np.save(path, numbered(40))
    sequence = make(
        {"a": paths[0], "b": paths[1], "c": numbered(40)}, device_batch=40, shuffle=False, on_bad="weight0", threads=1
    )
    os.truncate(paths[0], 128 + 35 * 1200)
    os.truncate(paths[1], 128 + 32 * 1200)
    x = sequence[0][0]
    for name in "abc":
        assert x[name][:32, 0, 0].tolist() == list(range(32))
    assert (x["a"] == x["b"]).all()
    assert (x["a"] == x["c"]).all()
    assert sequence.missing(0) == set(range(32, 40))


class Fails:
    shape, dtype = (30, 2), np.dtype("f4")

    def __getitem__(self, rows):
        if rows == 17 or isinstance(rows, slice):
            raise RuntimeError("a broken\n chunk")
        return np.full(2, rows, np.float32)


def test_an_error_of_another_library_names_the_row(make):
    for shuffle in (True, False):
        with pytest.raises(SampleError, match=r"sample 17, 'x\[17\]': RuntimeError: a broken chunk"):
            list(make(Fails(), device_batch=30, shuffle=shuffle))


def _files(folder):
    """What a person may give by mistake, and what is said."""
    np.save(folder / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    np.save(folder / "text.npy", np.array(["a"]))
    np.save(folder / "scalar.npy", np.float32(1))
    np.save(folder / "empty.npy", np.zeros((0, 3)))
    np.save(folder / "short.npy", numbered(9))
    os.truncate(folder / "short.npy", 5000)
    np.savez(folder / "two.npz", a=np.zeros(3), b=np.zeros(3))
    np.savez_compressed(folder / "packed.npz", a=np.zeros(30))
    with zipfile.ZipFile(folder / "no.npz", "w") as archive:
        archive.writestr("a.npy", "no array")
    (folder / "cut.npz").write_bytes((folder / "two.npz").read_bytes()[:-30])
    (folder / "nothing.npy").touch()
    os.mkfifo(folder / "pipe.npy")
    (folder / "folder.npy").mkdir()
    return [
        (folder / "objects.npy", "Python objects, which are never loaded"),
        (folder / "text.npy", "not of numbers"),
        (folder / "scalar.npy", r"the shape \(\), which has no rows"),
        (folder / "empty.npy", r"shape \(0, 3\), which has no rows"),
        (folder / "short.npy", "cut off: 4872 of the 10800 bytes"),
        (folder / "two.npz", "several arrays; .*FILE.npz/NAME: a, b"),
        (folder / "two.npz" / "c", "no array 'c'; .* a, b"),
        (folder / "packed.npz", r"'a' is compressed.*np.load\(PATH\)\['a'\]"),
        (folder / "no.npz", "not a .npy file"),
        (folder / "cut.npz", "not a zip file"),
        (folder / "nothing.npy", "an empty file"),
        (folder / "pipe.npy", "not a regular file"),
        (folder / "folder.npy", "not a regular file"),
        (folder / "missing.npy", "No such file"),
        ("s3://user:secret@bucket/x.npy", "'s3://bucket/x.npy': rows are read from files of this machine"),
        (np.array([None, 1]), "x is an array of Python objects"),
        (np.zeros(3, [("a", "f4"), ("b", "i4")]), "the fields a, b; give each as an array of its own"),
        (np.array(["a", "b"]), "not of numbers"),
        (np.zeros(3, "M8[s]"), "not of numbers"),
        (np.float32(1), "x has no rows"),
        (np.zeros((0, 3)), r"x has no rows: its shape is \(0, 3\)"),
        (np.zeros((3, 0)), r"x has no rows: its shape is \(3, 0\)"),
        (np.ma.masked_less(np.arange(4), 2), "masked array"),
        ([np.zeros(3), np.zeros(3)], "a tuple makes them several inputs"),
        (["a.npy", "b.npy"], "a tuple makes them several inputs"),
        ([[1, 2], [3]], "not of one shape"),
        ({}, "x is empty"),
        (None, "not None"),
        (object(), "not <object"),
    ]


def test_what_cannot_be_is_refused_by_name(tmp_path, make):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for given_, said in _files(tmp_path):
        with pytest.raises(ConfigError, match=said):
            make(given_, device_batch=2)
    assert len(list(Path("/proc/self/fd").iterdir())) == before  # nothing is left open


@pytest.mark.parametrize(
    ("y", "kwargs", "said"),
    [
        (np.zeros(29), {}, "x has 30 rows and y has 29: a sample is one of each"),
        ({"a": np.zeros(30), "b": np.zeros(31)}, {}, r"x has 30 rows and y\['b'\] has 31"),
        (np.zeros(30), {"labels": "one-hot"}, "for y of one integer"),
        (np.full(30, -1), {"labels": "one-hot"}, "integers from 0 on"),
        (np.arange(30), {"labels": "both"}, "labels must be one of integer, one-hot, not 'both'"),
        (np.arange(30), {"classes": 29}, "y has the label 29, of 29 classes"),
        (np.arange(30), {"classes": 0}, "classes must be a whole number of at least 1, not 0"),
        (np.zeros(30), {"class_weight": {0: 1.0}}, "one integer label each"),
    ],
)
def test_targets_that_do_not_fit_are_refused(y, kwargs, said, make):
    with pytest.raises(ConfigError, match=said):
        make(numbered(30), y, device_batch=2, **kwargs)


# -------------------------------------------------------------------------------------------------------- fingerprints


def test_the_fingerprint_is_of_the_data_and_not_of_where_they_are(make, tmp_path):
    array = numbered(30)
    prints = {make(saved(tmp_path, array, how), device_batch=5).samples.fingerprint for how in WAYS if how != "list"}
    assert len(prints) == 1
    changed = array.copy()
    changed[7] += 1
    others = [changed, array[:29], array.astype("f2"), array.reshape(30, 300), (array, array)]
    found = {make(one, device_batch=5).samples.fingerprint for one in others} | prints
    found.add(make(array, np.arange(30), device_batch=5).samples.fingerprint)
    assert len(found) == 7


def test_files_are_closed_with_their_sequence(tmp_path):
    path = saved(tmp_path, numbered(30), "path")
    before = len(list(Path("/proc/self/fd").iterdir()))
    sequence = dl.ArraySequence(path, device_batch=5, world=ALONE)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    del sequence
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_tiny_samples_do_not_fill_the_memory_with_what_is_kept_beside_them(monkeypatch) -> None:
    """A frame costs some kilobytes beside its samples: a million of 4 bytes each would take gigabytes."""
    made = []
    make_frame = dist_loader.frames.aligned_empty
    monkeypatch.setattr(dist_loader.frames, "aligned_empty", lambda *args: made.append(1) or make_frame(*args))
    sequence = dl.ArraySequence(np.zeros((50_000, 1), np.float32), device_batch=1, world=dl.World(0, 1, 0, 1))
    sequence[0]
    sequence.close()
    assert len(made) <= 4097
