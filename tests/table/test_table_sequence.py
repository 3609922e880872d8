"""Rows of a table as Keras gets them: which, in which form, and what is refused."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import dist_loader as dl
from dist_loader.errors import ConfigError, SampleError, TooManyBadSamples
from dist_loader.world import World
from tests.table.test_table import made_from

ALONE = World(rank=0, size=1, local_rank=0, local_size=1)
ROWS = 23


def of(rank: int, size: int) -> World:
    return World(rank=rank, size=size, local_rank=rank, local_size=size)


@pytest.fixture
def make(threads: object) -> Iterator[Callable[..., dl.TableSequence]]:
    made = []

    def make(table: dl.Table, device_batch: int = 4, **options: object) -> dl.TableSequence:
        if "strategy" not in options:
            options.setdefault("world", ALONE)
        made.append(dl.TableSequence(table, device_batch, 32, **options))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def people(rows: int = ROWS, **more: object) -> dl.Table:
    """Rows that all tell their own number."""
    numbers = range(rows)
    columns = {
        "n": list(numbers),
        "half": [n / 2 for n in numbers],
        "pair": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(2.0 * rows)), 2),
        "kind": [("cat", "dog", "ape")[n % 3] for n in numbers],
        "tags": ["|".join(("x", "y", "z")[: n % 4]) for n in numbers],
        "label": [n % 4 for n in numbers],
        "w": [n % 5 / 2 for n in numbers],
    }
    return dl.Table.from_columns(columns | more)


def in_order(sequence: dl.TableSequence) -> list[tuple]:
    return [sequence[step] for step in range(len(sequence))]


def whole(sequence: dl.TableSequence, part: int = 0) -> np.ndarray:
    """All rows of an unshuffled epoch, without the fill."""
    return np.concatenate([batch[part] for batch in in_order(sequence)])[: len(sequence.samples)]


# ----------------------------------------------------------------------------------------------------------- the rows


@pytest.mark.parametrize("chunks", [1, 5])
def test_columns_take_the_form_that_is_asked_for(make: Callable, chunks: int) -> None:
    table = people()
    if chunks > 1:
        pieces = pa.concat_tables([table.data.slice(at, 6) for at in range(0, ROWS, 6)])
        table = dl.Table.from_arrow(pieces)
    n = np.arange(ROWS, dtype=np.float32)

    def got(spec: object) -> np.ndarray:
        return whole(make(table, x=spec, shuffle=False))

    for spec, wanted in [
        ("n", n),
        (["n"], n[:, None]),
        (["n", "pair", "half"], np.stack([n, 2 * n, 2 * n + 1, n / 2], axis=1)),
        ("pair", np.stack([2 * n, 2 * n + 1], axis=1)),
        (dl.Numbers("n", dtype="int32"), n.astype(np.int32)),
        (dl.Numbers("half", dtype="float64"), (n / 2).astype(np.float64)),
        (dl.Label("kind"), np.array([(1, 2, 0)[i % 3] for i in range(ROWS)], np.int32)),
        (dl.Label("label"), np.arange(ROWS, dtype=np.int32) % 4),
        (dl.Label("label", one_hot=True), np.eye(4, dtype=np.float32)[np.arange(ROWS) % 4]),
        (dl.Label("label", classes=[3, 2, 1, 0]), 3 - np.arange(ROWS, dtype=np.int32) % 4),
        (
            dl.Label("kind", classes=["dog", "cat", "ape", "eel"], one_hot=True),
            np.eye(4)[[(1, 0, 2)[i % 3] for i in range(ROWS)]],
        ),
        (dl.Label("tags", separator="|"), np.tril(np.ones((4, 3)), -1)[np.arange(ROWS) % 4]),
    ]:
        found = got(spec)
        assert found.tolist() == wanted.tolist(), spec
        if wanted.dtype != np.float64 or getattr(spec, "dtype", "") == "float64":
            assert found.dtype == wanted.dtype


def test_structures_of_columns(make: Callable) -> None:
    sequence = make(people(), x={"a": "n", "b": (["half"], "n")}, y=("half", {"c": dl.Label("kind")}), weight="w")
    for (x, y, weights), step in zip(in_order(sequence), range(len(sequence)), strict=True):
        numbers = sequence.numbers(0, step)
        assert x["a"].tolist() == x["b"][1].tolist() == numbers.tolist()
        assert x["b"][0][:, 0].tolist() == y[0].tolist() == (numbers / 2).tolist()
        assert y[1]["c"].tolist() == [(1, 2, 0)[number % 3] for number in numbers]
        real = ~np.signbit(weights)
        assert np.allclose(weights[real], (numbers % 5 / 2 * len(real) / real.sum())[real])
    assert len(make(people(), x="n")[0]) == 1


@pytest.mark.parametrize("source", ["parquet folder", "arrow file", "pandas", "rows"])
def test_every_source_gives_the_same_sequence(source: str, make: Callable, tmp_path: Path) -> None:
    (tmp_path / "csv").mkdir()
    spec = {"x": ["age", "count"], "y": dl.Label("kind"), "seed": 3}
    first, other = make(made_from("csv", tmp_path / "csv"), 2, **spec), make(made_from(source, tmp_path), 2, **spec)
    assert first.samples.fingerprint == other.samples.fingerprint
    assert first.recipe == other.recipe
    for one, two in zip(in_order(first), in_order(other), strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, two)


def test_a_fingerprint_tells_other_data(make: Callable) -> None:
    def fingerprint(table: dl.Table, **spec: object) -> str:
        return make(table, **{"x": "n", "y": dl.Label("kind"), **spec}).samples.fingerprint

    table = people()
    others = [
        fingerprint(people(22)),
        fingerprint(table.take(np.arange(ROWS)[::-1])),
        fingerprint(people(n=[*range(ROWS - 1), 99])),
        fingerprint(table, y=dl.Label("kind", classes=["ape", "dog", "cat"])),
        fingerprint(table, y=None),
        fingerprint(table, weight="w"),
        fingerprint(people(w=[1.0] * ROWS), weight="w"),
    ]
    assert len({fingerprint(table), *others}) == 1 + len(others)
    assert fingerprint(table) == fingerprint(people(w=[1.0] * ROWS))  # a column that is not used


@pytest.mark.parametrize(("rows", "size", "device_batch"), [(1, 3, 2), (7, 2, 4), (23, 3, 2), (24, 4, 3)])
def test_every_row_once_an_epoch_in_equal_steps_whatever_the_world(
    make: Callable, rows: int, size: int, device_batch: int
) -> None:
    table, steps = people(rows), {}
    for world in (size, 1):
        ranks = [
            make(table, device_batch * size // world, x="n", y="half", seed=5, world=of(rank, world))
            for rank in range(world)
        ]
        for epoch in (0, 2):
            found = []
            for sequence in ranks:
                sequence.epoch = epoch
                batches = [(x, w[0] if w else np.ones(len(x))) for x, _, *w in in_order(sequence)]
                found.append([x[~np.signbit(w)].astype(int).tolist() for x, w in batches])
            assert len({len(batches) for batches in found}) == 1
            assert Counter(itertools.chain(*itertools.chain(*found))) == Counter(range(rows))
            steps[world, epoch] = [sorted(itertools.chain(*step)) for step in zip(*found, strict=True)]
    for epoch in (0, 2):
        assert steps[size, epoch] == steps[1, epoch]
    assert rows < 20 or steps[1, 0] != steps[1, 2]


# --------------------------------------------------------------------------------------------------------- what is not


@pytest.mark.parametrize(
    ("column", "spec", "words"),
    [
        ([1.0, None], "c", "row 1 of column 'c' has no value"),
        ([1.0, float("nan")], "c", "row 1 of column 'c' has no value"),
        ([1.0, float("inf")], "c", "row 1 of column 'c' is inf, which float32 cannot hold"),
        ([1.0, 1e39], "c", r"row 1 of column 'c' is 1e\+39"),
        ([1, 2**24 + 1], "c", "row 1 of column 'c' is 16777217, which float32"),
        ([1, -(2**24) - 1], "c", "row 1"),
        ([1, 2**31], dl.Numbers("c", dtype="int32"), "row 1 of column 'c' is 2147483648, which int32"),
        ([1, -1], dl.Numbers("c", dtype="uint8"), "row 1 of column 'c' is -1, which uint8"),
        ([1.0, 1.5], dl.Numbers("c", dtype="int32"), "row 1 of column 'c' is 1.5"),
        ([1, 2], dl.Numbers("c", dtype="int8"), "dtype must be one of"),
        (["a", "b"], "c", "column 'c' holds string and no numbers; a Label"),
        ([[1, 2], [3]], "c", "column 'c' must be of one length; that of row 1 has 1"),
        ([[1, 2], None], "c", "row 1 of column 'c' has no value"),
        ([[1, 2], [3, None]], "c", "row 1 of column 'c' has no value"),
        (["a", "b"], "d", "no column 'd'; it has 'c'"),
        (["a", ""], dl.Label("c"), "row 1 of column 'c' has no value"),
        (["a", None], dl.Label("c"), "row 1 of column 'c' has no value"),
        (["a", "b"], dl.Label("c", classes=["a"]), "row 1 of column 'c' is 'b', which is not one of the 1 classes"),
        ([0, 7], dl.Label("c", classes=[0, 1]), "row 1 of column 'c' is 7"),
        ([0, 1], dl.Label("c", classes=["0", "1"]), "holds int64, and the classes are of another kind"),
        (["a", "b|c"], dl.Label("c", classes=["a", "b"], separator="|"), "row 1 of column 'c' is 'c'"),
        (["a", None], dl.Label("c", separator="|"), "row 1 of column 'c' has no value"),
        (["a", "b"], dl.Label("c", separator="|", one_hot=True), "leave one_hot out"),
        ([1.5, 2.0], dl.Label("c"), "column 'c' holds double"),
        ([1, 2], dl.Image("c", (4, 4)), "column 'c' holds int64, and paths must be texts"),
        (["a", ""], dl.Image("c", (4, 4)), "row 1 of column 'c' names no file"),
        (["a", None], dl.Mask("c", (4, 4)), "row 1 of column 'c' names no file"),
        ([None, None], "c", "row 0 of column 'c' has no value"),
        (pa.array([None, None], pa.list_(pa.float64())), "c", "row 0 of column 'c' has no value"),
        (["a", "b"], dl.Mask("c", (4, 4), dtype="float32"), "dtype of a Mask"),
        ([1, 2], 7, "x takes names of columns"),
        ([1, 2], {"a": {1: None}}, "x takes names of columns"),
    ],
)
def test_values_that_cannot_be_used_are_named(column: object, spec: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        dl.TableSequence(dl.Table.from_columns({"c": column}), 2, 4, x=spec, world=ALONE)


@pytest.mark.parametrize(
    ("column", "spec"),
    [
        ([1.0, None, 3.0], dl.Numbers("c", missing=0)),
        ([1, None, 3], dl.Numbers("c", dtype="int32", missing=-1)),
        ([[1.0, 2.0], None, [3.0, float("nan")]], dl.Numbers("c", missing=9)),
    ],
)
def test_missing_numbers_get_the_value_that_stands_for_them(column: list, spec: dl.Numbers, make: Callable) -> None:
    found = whole(make(dl.Table.from_columns({"c": column}), 3, x=spec, shuffle=False))
    wanted = np.array(
        [[np.nan] * 2 if row is None else row for row in column] if column[0] == [1, 2] else column, float
    )
    wanted[np.isnan(wanted)] = spec.missing
    assert found.tolist() == wanted.tolist()


def test_rows_that_were_left_out_are_not_looked_at(make: Callable) -> None:
    table = dl.Table.from_columns({"c": [1.0, None, 3.0], "k": ["a", "", "b"], "t": ["a", None, "a|b"]}).take([2, 0])
    sequence = make(table, 2, x="c", y=(dl.Label("k"), dl.Label("t", separator="|")), shuffle=False)
    assert keras.tree.map_structure(np.ndarray.tolist, sequence[0]) == ([3, 1], ([1, 0], [[1, 1], [1, 0]]))


@pytest.mark.parametrize(
    "spec",
    [
        lambda: dl.Label("c", classes=["a", "a"]),
        lambda: dl.Label("c", classes="ab"),
        lambda: dl.Label("c", classes=["a", 1]),
        lambda: dl.Label("c", separator=""),
        lambda: dl.Numbers([]),
        lambda: dl.Image("c", (4,)),
        lambda: dl.Mask("c", 4),
    ],
)
def test_specifications_that_make_no_sense(spec: Callable) -> None:
    with pytest.raises(ConfigError):
        spec()


def test_classes_are_those_of_the_whole_table_and_can_be_shared(make: Callable) -> None:
    table = people()
    cats = table.take([n for n in range(ROWS) if n % 3 == 0])
    sequence = make(cats, x="n", y=dl.Label("kind"))
    assert set(sequence[0][1].tolist()) == {1}
    assert sequence.samples.classes == ("ape", "cat", "dog")
    elsewhere = dl.Table.from_columns({"n": [1, 2], "kind": ["dog", "dog"]})
    assert whole(make(elsewhere, x=dl.Label("kind", classes=table.classes("kind")), shuffle=False)).tolist() == [2, 2]


def test_weights_of_classes_are_those_of_the_one_label(make: Callable) -> None:
    for y in (dl.Label("kind"), {"kind": dl.Label("kind")}, dl.Label("kind", one_hot=True)):
        sequence = make(people(), x="n", y=y, class_weight={2: 3.0}, device_batch=ROWS)
        x, _, weights = sequence[0]
        assert weights.tolist() == [3.0 if n % 3 == 1 else 1.0 for n in x]
    for y in ("half", dl.Label("tags", separator="|"), (dl.Label("kind"), dl.Label("label"))):
        with pytest.raises(ConfigError, match="class_weight is for samples with one integer label"):
            make(people(), x="n", y=y, class_weight={2: 3.0})
    with pytest.raises(ConfigError, match="both given"):
        make(people(), x="n", y="half", weight="w", sample_weight=np.ones(ROWS))
    with pytest.raises(ConfigError, match="lists"):
        make(people(), x="n", y="half", weight="pair")


# -------------------------------------------------------------------------------------------------- images and masks


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dl.Table:
    """Noise of many sizes, and for each a mask that says how red its pixels are."""
    root = tmp_path_factory.mktemp("photos")
    rng, rows = np.random.default_rng(0), []
    for number in range(9):
        pixels = rng.integers(0, 256, (rng.integers(10, 40), rng.integers(10, 40), 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        mask = Image.fromarray(pixels[..., 0]) if number % 2 else palette(pixels[..., 0])
        mask.save(root / f"{number}.mask.png")
        rows.append((f"{number}.png", f"{number}.mask.png", number))
    table = dl.Table.from_rows(rows, names=("photo", "mask", "n"))
    table.save(root / "photos.arrow")
    return dl.Table.from_arrow(root / "photos.arrow")  # whose folder is the paths' root


def palette(numbers: np.ndarray) -> Image.Image:
    """A mask with a palette of colors that have nothing to do with the numbers."""
    mask = Image.fromarray(numbers)
    mask.putpalette(np.random.default_rng(1).integers(0, 256, 768, np.uint8).tobytes())
    assert mask.mode == "P"
    return mask


@pytest.mark.parametrize("crop", ["random-resized", "center", "stretch"])
def test_masks_show_the_same_part_as_their_images(crop: str, make: Callable, photos: dl.Table) -> None:
    x = dl.Image("photo", (12, 8), resize="nearest")
    sequence = make(photos, x=x, y=dl.Mask("mask", (12, 8)), crop=crop, shuffle=False, remainder="wrap")
    seen = []
    for epoch in (0, 1):
        sequence.epoch = epoch
        for images, masks in in_order(sequence):
            assert (masks.shape, masks.dtype) == ((4, 12, 8, 1), np.uint8)
            assert (masks == images[..., :1]).all()
            seen.append(masks.tobytes())
    assert (len(set(seen)) == len(seen)) == (crop == "random-resized")


def test_all_images_of_a_row_have_the_row_s_crop(make: Callable, photos: dl.Table) -> None:
    x = {"a": dl.Image("photo", (8, 8), resize="nearest"), "b": dl.Image("photo", (16, 16), "grayscale", "nearest")}
    sequence = make(photos, x=x, y=dl.Image("photo", (8, 8), resize="nearest"), crop="random-resized")
    images, targets = sequence[0][:2]
    assert images["b"].shape == (4, 16, 16, 1)
    assert targets.tolist() == images["a"].tolist()  # one array: the file is read once


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_masks_of_any_depth_keep_their_numbers(bits: int, make: Callable, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    numbers = np.random.default_rng(2).integers(0, 2**bits, (6, 7)).astype(np.uint16 if bits == 16 else np.uint8)
    path = tmp_path / "mask.png"
    if bits < 8:
        _write_png(path, numbers, bits)
    else:
        assert cv2.imwrite(str(path), numbers)
    table = dl.Table.from_rows([(path,)], names=["mask"])
    for dtype in ("uint8", "int32"):
        sequence = make(table, 1, x=dl.Mask("mask", (6, 7), dtype=dtype))
        if (bits, dtype) == (16, "uint8"):
            with pytest.raises(SampleError, match="mask.png'.*numbers up to .*uint8 was asked for"):
                sequence[0]
        else:
            assert sequence[0][0][0, ..., 0].tolist() == numbers.tolist()


def _write_png(path: Path, numbers: np.ndarray, bits: int) -> None:
    """A gray PNG of few bits, which Pillow does not write."""
    import struct
    import zlib

    height, width = numbers.shape
    one_by_one = np.unpackbits(numbers[..., None], axis=2)[..., 8 - bits :].reshape(height, -1)
    rows = np.packbits(one_by_one, axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


BROKEN = {
    "is not there": (None, "No such file"),
    "is a JPEG": ("jpeg", "cannot be a JPEG"),
    "has colors": ("rgb", "one number for each pixel, and this file has RGB"),
    "is of another size": (
        "size",
        "5 x 6 pixels .height x width., and '.*photo3.png' has 8 x 8 pixels: a mask and its",
    ),
    "is text": ("text", "not an image"),
}


@pytest.mark.parametrize("what", list(BROKEN))
@pytest.mark.parametrize("on_bad", ["raise", "replace", "weight0"])
def test_a_bad_mask_makes_a_bad_row(what: str, on_bad: str, make: Callable, tmp_path: Path) -> None:
    kind, words = BROKEN[what]
    rows = []
    for number in range(6):
        gray = np.full((8, 8), number, np.uint8)
        Image.fromarray(np.dstack([gray] * 3)).save(tmp_path / f"photo{number}.png")
        Image.fromarray(gray).save(tmp_path / f"mask{number}.png")
        rows.append((tmp_path / f"photo{number}.png", tmp_path / f"mask{number}.png", number))
    bad = tmp_path / "mask3.png"
    bad.unlink()
    if kind == "jpeg":
        Image.fromarray(gray).save(bad, format="JPEG")
    elif kind == "rgb":
        Image.fromarray(np.dstack([gray] * 3)).save(bad)
    elif kind == "size":
        Image.fromarray(gray[:5, :6]).save(bad)
    elif kind == "text":
        bad.write_text("mask")
    table = dl.Table.from_rows(rows, names=["photo", "mask", "n"])
    x = (dl.Image("photo", (4, 4)), "n")
    sequence = make(
        table, 6, x=x, y=dl.Mask("mask", (4, 4)), on_bad=on_bad, bad_file=tmp_path / "bad.jsonl", shuffle=False
    )
    if on_bad == "raise":
        with pytest.raises(SampleError, match=f"rank 0.*sample 3.*mask3.png.*{words}"):
            sequence[0]
        return
    (images, numbers), masks, *weights = sequence[0]
    assert images[:, 0, 0, 0].tolist() == numbers.tolist() == masks[:, 0, 0, 0].tolist()
    assert numbers.tolist()[:3] + numbers.tolist()[4:] == [0, 1, 2, 4, 5]
    assert numbers[3] != 3
    assert not weights or weights[0][3] == 0
    noted = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [(line["path"], line["sample"]) for line in noted] == [(str(bad), 3)]


def test_the_budget_of_bad_rows_holds(make: Callable, tmp_path: Path) -> None:
    table = dl.Table.from_rows([(tmp_path / f"{n}.png", n) for n in range(4)])
    sequence = make(table, 4, x=dl.Image("path", (4, 4)), y=dl.Label("label"), on_bad="replace", bad_budget=1)
    with pytest.raises(TooManyBadSamples, match="No such file"):
        sequence[0]


def test_files_are_named_and_found_below_the_root(make: Callable, tmp_path: Path, photos: dl.Table) -> None:
    image = dl.Image("photo", (4, 4))
    there = make(photos, x=image, shuffle=False)
    assert there.name(3) == f"{photos.root}/3.png"
    assert there[0][0].any()
    elsewhere = make(photos, x=image, root=tmp_path, shuffle=False)
    with pytest.raises(SampleError, match=f"{tmp_path}/0.png.*No such file"):
        elsewhere[0]
    assert make(photos, x="n").name(3) == "row 3 of the table"
    sliced = dl.Table.from_arrow(pa.concat_tables([photos.data.slice(5, 2), photos.data.slice(2, 1)]))
    assert [make(sliced, x=image).name(n) for n in range(3)] == [f"{sliced.root}/{n}.png" for n in (5, 6, 2)]
    with pytest.raises(ConfigError, match="all be of one kind, got local paths, s3://"):
        rows = [("s3://bucket/1.png", "/1.png")]
        make(dl.Table.from_rows(rows, names=("a", "b")), x=(dl.Image("a", (4, 4)), dl.Image("b", (4, 4))))
    with pytest.raises(ConfigError, match="sizes of image and mask"):
        make(photos, x=dl.Image("photo", (4, 4)), y=dl.Mask("mask", (4, 8)), crop="center")
    with pytest.raises(ConfigError, match="crop must be one of"):
        make(photos, x=image, crop="middle")
