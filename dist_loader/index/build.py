"""From a folder of class folders to the arrays of an index."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.index.scan import Files, Walk, class_folders, shown
from dist_loader.index.stamps import Stamps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from numpy.typing import NDArray


class Built(NamedTuple):
    """The parts of an index, and the stamps of the directories that they were found in."""

    classes: tuple[str, ...]
    labels: NDArray[np.int32]
    buffer: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    stamps: Stamps

    def parts(self) -> tuple[tuple[str, ...], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
        """What `Index` takes after the root."""
        return self.classes, self.labels, self.buffer, self.offsets


def build(
    top: bytes,
    suffixes: Collection[str],
    classes: tuple[str, ...] | None,
    threads: int,
    say: Callable[[str], None],
) -> Built:
    """Finds the images and numbers their classes; see `Index.from_directory`.

    Args:
        top: the folder of class folders, absolute.
        suffixes: what an image's name ends with.
        classes: the classes and their numbering; None: the folders in byte order.
        threads: how many folders are listed at the same time.
        say: called from time to time with how far it is.
    """
    stamps, directories = Stamps(), 0
    folders, seen = class_folders(top, suffixes)
    names, number = numbered(folders, classes, top)
    folders.sort(key=number.__getitem__)

    # Flat, growing buffers instead of lists: at no time does a Python object per path exist for the whole set.
    buffer, lengths, found = bytearray(), array("i"), [0] * len(folders)
    for directory in seen:
        stamps.add(directory)
    walk = Walk(top, folders, suffixes, threads)
    for each in walk:
        if isinstance(each, Files):
            buffer += each.paths
            lengths.frombytes(each.lengths.tobytes())
            found[each.folder] += len(each.lengths)
            continue
        if each is not None:
            stamps.add(each)
            directories += 1
        say(how_far(top, len(lengths), directories, walk.names))
    if not lengths:
        raise no_images(top, len(folders), suffixes)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.frombuffer(lengths, np.int32), out=offsets[1:])
    labels = np.repeat(np.array([number[folder] for folder in folders], np.int32), found)
    return Built(names, labels, np.frombuffer(buffer, np.uint8), offsets, stamps)


def how_far(top: bytes, images: int, folders: int, names: int) -> str:
    """What is said of an index that is being made."""
    return f"indexing {shown(top)}: {images:,} images in {folders:,} folders, {names:,} names seen"


def numbered(
    folders: Sequence[bytes], classes: tuple[str, ...] | None, top: bytes
) -> tuple[tuple[str, ...], dict[bytes, int]]:
    """The classes' names, and the number of each folder of one.

    Raises:
        ConfigError: a folder is not one of the classes that are asked for.
    """
    names = tuple(map(os.fsdecode, folders)) if classes is None else _all_known(folders, classes, top)
    return names, {os.fsencode(name): i for i, name in enumerate(names)}


def no_images(top: bytes, folders: int, suffixes: Collection[str]) -> ConfigError:
    """The error of a folder without a single image."""
    return ConfigError(
        f"no images in {shown(top)}: none of its {folders} class folders holds a file ending in {', '.join(suffixes)}"
    )


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names as a user gave them.

    Raises:
        ConfigError: they are not different names.
    """
    if isinstance(classes, str) or not classes or not all(isinstance(name, str) for name in classes):
        raise ConfigError(f"classes must be a list of class names, got {classes!r:.80}")
    if len(set(classes)) != len(classes):
        twice = next(name for i, name in enumerate(classes) if name in classes[:i])
        raise ConfigError(f"class {twice!r} is named twice in classes: every class needs one number")
    return tuple(classes)


def _all_known(folders: Sequence[bytes], classes: tuple[str, ...], root: bytes) -> tuple[str, ...]:
    """The classes, after making sure that every folder found is one of them."""
    known = set(map(os.fsencode, classes))
    for folder in folders:
        if folder not in known:
            raise ConfigError(
                f"folder {shown(folder)} in {shown(root)} is not one of the {len(classes)} classes "
                f"{list(classes)!r:.80}: move it away, or add it to the classes"
            )
    return classes
