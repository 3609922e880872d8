"""The files that the programs of docs/from-keras-generators.md and other pages work on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

import dist_loader as dl

CLASSES = ("cat", "dog", "owl")


def make(folder: Path) -> None:
    """Write all of them into a folder."""
    photos(folder)
    arrays(folder)
    tokens(folder)
    people(folder)
    stream(folder)


def photos(folder: Path) -> None:
    """Folders of classes; in "mixed", one image is cut off and one is empty."""
    rng = np.random.default_rng(0)
    for part, least in (("photos/train", 11), ("photos/val", 4), ("mixed", 7)):
        for label, name in enumerate(CLASSES):
            place = folder / part / name
            place.mkdir(parents=True)
            for number in range(least + label):
                pixels = rng.normal(60 + 60 * label, 20, (40, 48, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number:03}.jpg", quality=90)
    whole = (folder / "mixed" / "owl" / "000.jpg").read_bytes()
    (folder / "mixed" / "owl" / "000.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "mixed" / "cat" / "empty.png").touch()


def arrays(folder: Path) -> None:
    """x.npy (50, 16, 16), y.npy (50,), valid.npz (x and y of 21), and 23 volumes with their ids and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 71)
    x = (rng.random((71, 16, 16)) + labels[:, None, None] / 5).astype(np.float32)
    np.save(folder / "x.npy", x[:50])
    np.save(folder / "y.npy", labels[:50])
    np.savez(folder / "valid.npz", x=x[50:], y=labels[50:])
    ids = [f"id-{number}" for number in range(1, 24)]
    of_id = {one: int(rng.integers(0, 3)) for one in ids}
    (folder / "data").mkdir(exist_ok=True)
    for one, label in of_id.items():
        np.save(folder / "data" / f"{one}.npy", (rng.random((32, 32, 32)) + label).astype(np.float32))
    (folder / "partition.json").write_text(json.dumps({"train": ids[:15], "validation": ids[15:]}))
    (folder / "labels.json").write_text(json.dumps(of_id))


def tokens(folder: Path) -> None:
    """300 sequences of 1 to 40 words, a tag of 5 for each word, and a table of word vectors."""
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 500, length) for length in rng.integers(1, 41, 300)]
    for name, part in (("train", slice(0, 240)), ("valid", slice(240, 300))):
        dl.save_tokens(folder / f"{name}.tokens", texts[part], "uint16")
        dl.save_tokens(folder / f"{name}.tags", [text % 5 for text in texts[part]], "uint8")
    np.save(folder / "word2vec.npy", rng.normal(size=(500, 16)).astype(np.float32))


def people(folder: Path) -> None:
    """people.csv (photo, mask, age, height, name, hobbies) and its pictures: JPEG photos, palette PNG masks."""
    rng, lines = np.random.default_rng(0), ["photo,mask,age,height,name,hobbies,weight"]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for number in range(37):
        kind = number % 3
        mask = np.zeros((40, 48), np.uint8)
        mask[10:30, 8 + 4 * kind : 28 + 4 * kind] = kind + 1
        photo = np.where(mask[..., None] > 0, 60 * (kind + 1), 20) + rng.integers(0, 40, (40, 48, 3))
        Image.fromarray(photo.astype(np.uint8)).save(folder / "pictures" / f"{number}.jpg", quality=95)
        palette = Image.fromarray(mask)
        palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
        palette.save(folder / "pictures" / f"{number}.png")
        hobbies = "|".join(("music", "chess", "ski")[: number % 4])
        lines.append(
            f"pictures/{number}.jpg,pictures/{number}.png,{20 + number},{150 + kind * 10 + number % 7},"
            f"{('ann', 'bob', 'eve')[kind]},{hobbies},{1 + number % 2}"
        )
    (folder / "people.csv").write_text("\n".join(lines) + "\n")


def stream(folder: Path) -> None:
    """`stream.npz` (x, y), and `sample-N.npy` with their labels in `labels.txt`."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(73, 6)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int64)
    np.savez(folder / "stream.npz", x=x, y=y)
    for number, row in enumerate(x):
        np.save(folder / f"sample-{number:03d}.npy", row)
    lines = [f"sample-{number:03d} {label}\n" for number, label in enumerate(y)]
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")
