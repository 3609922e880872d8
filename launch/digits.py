"""Writes the handwritten digits that scikit-learn ships as PNG files in class folders: a real data set, offline.

    python launch/digits.py data/digits

gives ``data/digits/train/<0-9>/`` and ``data/digits/val/<0-9>/``: 1,797 grayscale images of 8x8 pixels.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

CLASSES = 10
SAMPLES = 1797
VAL_EVERY = 5  # one in five images is for validation
BRIGHTEST = 16  # scikit-learn counts the dark pixels of a 4x4 block: 0 to 16


def is_complete(root: Path) -> bool:
    """Every image of both splits is there. Cheap, so that every start can ask."""
    folders = [root / split / str(digit) for split in ("train", "val") for digit in range(CLASSES)]
    if not all(folder.is_dir() for folder in folders):
        return False
    sizes = [file.stat().st_size for folder in folders for file in folder.glob("*.png")]
    return len(sizes) == SAMPLES and all(sizes)


def split_of(labels: Sequence[int]) -> list[str]:
    """The split of each sample: of every class, each fifth image is for validation.

    A function of the labels alone, so that everyone measures on the same images.
    """
    seen = [0] * CLASSES
    splits = []
    for label in labels:
        seen[label] += 1
        splits.append("val" if seen[label] % VAL_EVERY == 0 else "train")
    return splits


def write_images(root: Path) -> None:
    """Writes all images below an existing, empty folder."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = [int(label) for label in digits.target]
    pixels = (digits.images * 255 / BRIGHTEST).round().astype("uint8")  # (samples, height, width)
    for number, (image, label, split) in enumerate(zip(pixels, labels, split_of(labels), strict=True)):
        folder = root / split / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:04d}.png")


@contextlib.contextmanager
def replacing(root: Path) -> Iterator[Path]:
    """A folder to fill that becomes ``root`` in one step at the end, or leaves no trace."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        yield fresh
        if root.exists():
            root.rename(Path(temporary) / "old")
        fresh.rename(root)


def is_ours(root: Path) -> bool:
    """Nothing but what an earlier run may have written: safe to replace."""
    return not root.exists() or (root.is_dir() and {entry.name for entry in root.iterdir()} <= {"train", "val"})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write scikit-learn's handwritten digits as PNG files.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that gets train/<0-9>/ and val/<0-9>/")
    root = parser.parse_args(argv).out.resolve()
    if is_complete(root):
        print(f"digits: {SAMPLES:,} images are in {root} already")
        return 0
    if not is_ours(root):
        print(f"digits: {root} exists and holds something else; name another folder", file=sys.stderr)
        return 2
    try:
        with replacing(root) as fresh:
            write_images(fresh)
    except ModuleNotFoundError as error:
        print(f"digits: the module {error.name} is missing: pip install scikit-learn pillow", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"digits: cannot write {root}: {error}", file=sys.stderr)
        return 2
    print(f"digits: wrote {SAMPLES:,} images to {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
