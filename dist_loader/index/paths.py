"""The parts of an index of listed files: local paths, or addresses of one scheme."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.index.build import checked_classes
from dist_loader.remote.address import redacted, scheme_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def parts_of(
    paths: Sequence[str | os.PathLike[str]],
    labels: Sequence[int] | Sequence[str] | NDArray[np.integer],
    classes: Sequence[str] | None,
    root: str | os.PathLike[str],
) -> tuple[str, tuple[str, ...], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int64]]:
    """Root, classes, labels (samples,), paths relative to root one after the other, and where each starts.

    See `Index.from_paths` for the arguments.

    Raises:
        ConfigError: they do not fit each other.
    """
    if isinstance(paths, str | bytes) or not len(paths):
        raise ConfigError(f"paths must be a list with at least one path, got {paths!r:.80}")
    if len(paths) != len(labels):
        raise ConfigError(f"{len(paths)} paths with {len(labels)} labels: every path needs one")
    names = [os.fspath(path) for path in paths]
    for number, name in enumerate(names):
        if not isinstance(name, str) or not name:
            raise ConfigError(f"path {number} must be a text that is not empty, got {name!r}")
    top, relative = _below_root(names, os.fspath(root))
    encoded = list(map(os.fsencode, relative))
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
    numbering, numbers = _numbered(labels, classes)
    return top, numbering, numbers, np.frombuffer(b"".join(encoded), np.uint8), offsets


def _below_root(names: list[str], root: str) -> tuple[str, list[str]]:
    """The root, without a slash at its end, and the paths relative to it."""
    if root:
        top = (root if scheme_of(root) else os.path.abspath(root)).rstrip("/")  # noqa: PTH100 (".." stays in a Path)
        names = [f"{top}/{name}" if scheme_of(name) is None and not name.startswith("/") else name for name in names]
    elif all(scheme_of(name) is None for name in names):
        here = os.getcwd()  # noqa: PTH109 (a Path costs more than it is worth here)
        names = [name if name.startswith("/") else f"{here}/{name}" for name in names]
    schemes = {scheme_of(name) for name in names}
    if len(schemes) > 1:
        found = ", ".join(sorted("local paths" if scheme is None else f"{scheme}://" for scheme in schemes))
        raise ConfigError(f"the paths of one index must be of one kind, got {found}")
    if not root:
        top = _common_folder(names)
    start = f"{top}/"
    for number, name in enumerate(names):
        if not name.startswith(start):
            raise ConfigError(f"path {number}, {redacted(name)!r}, is not below root={redacted(top)!r}")
    return top, [name[len(start) :] for name in names]


def _common_folder(names: list[str]) -> str:
    """The longest folder that all are in; of an address, never a part of its query."""
    shared = os.path.commonprefix(names)  # noqa: RUF071 (an address loses its double slash otherwise)
    return (shared.partition("?")[0] if scheme_of(shared) else shared).rpartition("/")[0]


def _numbered(
    labels: Sequence[int] | Sequence[str] | NDArray[np.integer], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Names of the classes, and for every sample the number of its own."""
    known = None if classes is None else checked_classes(classes)
    given = np.asarray(labels)
    if given.ndim != 1 or given.dtype.kind not in "iuU":
        raise ConfigError(f"labels must be a list of whole numbers or of class names, got {labels!r:.80}")
    if given.dtype.kind == "U":
        if known is None:
            known = tuple(sorted(set(given.tolist()), key=str.encode))
        number = {name: i for i, name in enumerate(known)}
        for row, name in enumerate(given.tolist()):
            if name not in number:
                raise ConfigError(f"label {name!r} of path {row} is not one of the {len(known)} classes")
        return known, np.fromiter(map(number.__getitem__, given.tolist()), np.int32, len(given))
    least, most = int(given.min()), int(given.max())
    if known is None:
        known = tuple(map(str, range(most + 1)))
    if least < 0 or most >= len(known):
        raise ConfigError(f"labels must be from 0 to {len(known) - 1}, the classes' numbers; got {least} to {most}")
    return known, given.astype(np.int32)
