"""The images below a remote folder of class folders, in the order that a local one would have."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.index.build import checked_classes
from dist_loader.index.scan import LAYOUT, endings
from dist_loader.remote.address import redacted, scheme_of
from dist_loader.remote.fetch import run
from dist_loader.remote.filesystem import open_filesystem
from dist_loader.remote.retry import FetchError, Limits, with_retries

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

_AT_ONCE = 8  # classes that are listed at the same time; the names of so many are in memory as Python objects
_LIMITS = Limits(one_try=3600.0, total=4 * 3600.0)  # of a class; each request is bounded by connect and silence


def listed(
    root: str, suffixes: Collection[str], classes: Sequence[str] | None
) -> tuple[str, tuple[str, ...], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """The parts of an index of root/<class>/**/<image>, as `Index.from_directory` finds them in a local folder.

    A folder of an object store is what some name has before a slash, so there are no empty ones.

    Args:
        root: address of the folder of class folders.
        suffixes: what an image's name ends with, case ignored.
        classes: the classes and their numbering; None for all folders, in byte order.

    Returns:
        root without a slash at its end, the classes' names, labels (samples,), relative paths one after the other, and
        where each starts (samples + 1,).

    Raises:
        ConfigError: it cannot be listed, holds no class folders or no images; a folder is not one of `classes`.
    """
    scheme = str(scheme_of(root))
    top = root.rstrip("/")
    shown = repr(redacted(top))
    if scheme in ("http", "https"):
        raise ConfigError(
            f"{shown} cannot be listed, HTTP has no folders; use Index.from_paths with a list of addresses"
        )
    wanted = tuple(endings(suffixes))
    filesystem = open_filesystem(scheme, _AT_ONCE, _LIMITS)
    try:
        names = run(_class_folders(filesystem, top, wanted), filesystem.loop, _LIMITS.total)
        numbering = tuple(names) if classes is None else _numbering(classes, names, shown)
        ordered = [name for name in numbering if name in set(names)]
        found = run(_images(filesystem, top, ordered, wanted), filesystem.loop, _LIMITS.total * max(1, len(ordered)))
    except FetchError as error:
        raise ConfigError(f"cannot list {shown}: {error}") from None
    buffer, offsets, labels = bytearray(), array("q", [0]), array("i")
    for name, (paths, lengths) in zip(ordered, found, strict=True):
        buffer += paths
        offsets.extend((np.cumsum(lengths) + offsets[-1]).tolist())
        labels.extend([numbering.index(name)] * len(lengths))
    if not labels:
        raise ConfigError(
            f"no images in {shown}: none of its {len(names)} class folders holds a file ending in {', '.join(suffixes)}"
        )
    parts = np.frombuffer(labels, np.int32), np.frombuffer(buffer, np.uint8), np.frombuffer(offsets, np.int64)
    return top, numbering, *parts


async def _class_folders(filesystem: Any, top: str, suffixes: tuple[str, ...]) -> list[str]:
    try:
        entries = await with_retries(lambda: filesystem._ls(top, detail=True), _LIMITS)  # noqa: SLF001
    except FetchError as error:
        if str(error).startswith("no such file"):
            raise ConfigError(f"image folder {redacted(top)!r} does not exist; {LAYOUT}") from None
        raise
    ours = str(filesystem._strip_protocol(top))  # noqa: SLF001
    below = [(entry["name"].rstrip("/").rpartition("/")[2], entry) for entry in entries]
    names = [name for name, entry in below if entry["type"] == "directory" and not name.startswith(".")]
    if not names:
        if [entry["name"] for entry in entries] == [ours]:
            raise ConfigError(f"{redacted(top)!r} is a file, not a folder of images; {LAYOUT}")
        stray = sum(name.lower().endswith(suffixes) for name, _ in below)
        found = f"{stray} images directly in it" if stray else "nothing to read in it"
        raise ConfigError(f"image folder {redacted(top)!r} has no class folders and {found}; {LAYOUT}")
    return sorted(set(names), key=str.encode)


async def _images(
    filesystem: Any, top: str, folders: Sequence[str], suffixes: tuple[str, ...]
) -> list[tuple[bytes, NDArray[np.int64]]]:
    """For each folder, the images' paths relative to top, one after the other in byte order, and their lengths."""
    at_once = asyncio.Semaphore(_AT_ONCE)
    start = len(str(filesystem._strip_protocol(top))) + 1  # noqa: SLF001

    async def images(folder: str) -> tuple[bytes, NDArray[np.int64]]:
        async with at_once:
            names = await with_retries(lambda: filesystem._find(f"{top}/{folder}"), _LIMITS)  # noqa: SLF001
        relative = (name[start:] for name in names if name.lower().endswith(suffixes))
        paths = sorted(path.encode() for path in relative if not path.startswith(".") and "/." not in path)
        return b"".join(paths), np.fromiter(map(len, paths), np.int64, len(paths))

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(images(folder)) for folder in folders]
    return [task.result() for task in running]


def _numbering(classes: Sequence[str], names: Sequence[str], shown: str) -> tuple[str, ...]:
    known = checked_classes(classes)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"folder {name!r} in {shown} is not one of the {len(known)} classes {list(known)!r:.80}: "
                f"move it away, or add it to the classes"
            )
    return known
