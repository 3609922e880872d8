"""Whether a tree of directories is still as it was when it was read, without reading it again.

A directory's time of modification changes when an entry is added, removed or renamed. So one stat for each directory
tells, and none for each file.
"""

# ruff: noqa: PTH116, PTH118 (pathlib does not take bytes)

from __future__ import annotations

import os
import threading
import time
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dist_loader.errors import ReadTimeout
from dist_loader.index.file import Blocks, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# Clocks of file systems tick coarsely (FAT: 2 s): a second change within one tick leaves the time as it was.
_NS_TO_SETTLE = 2_000_000_000

_SECONDS_WITHOUT_ANSWER = 300.0


class Stamp(NamedTuple):
    """What changes when an entry is added to a directory, removed or renamed, or when it is another directory.

    The device's number is not part of it: on a network file system, every host has its own.
    """

    inode: int
    modified: int  # ns
    changed: int  # ns; unlike the time of modification, nobody can set it back


@dataclass(frozen=True)
class Directory:
    """A directory that was looked at, relative to the root; its stamp was taken before it was listed."""

    path: bytes
    stamp: Stamp


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp in what `os.stat` returned."""
    return Stamp(status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


class Stamps:
    """The stamps of a tree's directories, collected in flat memory to be written beside what was found in them.

    To be made before the first of the stamps is taken.
    """

    def __init__(self) -> None:
        self._paths, self._offsets, self._stamps = bytearray(), array("q", [0]), array("q")
        self._settled_before = time.time_ns() - _NS_TO_SETTLE
        self._settled = True

    def add(self, directory: Directory) -> None:
        """Remember a directory."""
        self._paths += directory.path
        self._offsets.append(len(self._paths))
        self._stamps.extend(numbers_of(directory))
        self._settled &= directory.stamp.modified < self._settled_before

    def add_all(self, paths: bytes, lengths: NDArray[np.int64], stamps: NDArray[np.int64]) -> None:
        """Remember directories of which another process has the stamps; see `arrays`."""
        offsets = np.cumsum(lengths) + self._offsets[-1]
        self._paths += paths
        self._offsets.frombytes(offsets.astype(np.int64).tobytes())
        self._stamps.frombytes(stamps.astype(np.int64).tobytes())
        modified = stamps.reshape(-1, len(Stamp._fields))[:, Stamp._fields.index("modified")]
        self._settled &= bool((modified < self._settled_before).all())

    @property
    def settled(self) -> bool:
        """Whether none of them had been changed so shortly before that a later change could have the same time."""
        return self._settled

    def arrays(self) -> dict[str, Blocks]:
        """What `unchanged` needs, to be written to a file; elements of eight bytes first."""
        return {
            "folder_stamps": whole(np.frombuffer(self._stamps, np.int64)),
            "folder_offsets": whole(np.frombuffer(self._offsets, np.int64)),
            "folder_paths": whole(np.frombuffer(self._paths, np.uint8)),
        }


def unchanged(root: bytes, arrays: Mapping[str, NDArray[Any]], threads: int) -> bool:
    """Whether all directories below a root have the stamps that they had.

    Args:
        root: the folder that their paths are relative to.
        arrays: those of `Stamps.arrays`.
        threads: how many directories are asked at the same time.

    Raises:
        ReadTimeout: the file system has stopped to answer.
    """
    check = _Check(root, arrays, threads)
    workers = [threading.Thread(target=check.run, args=(n,), daemon=True, name=f"stat-{n}") for n in range(threads)]
    for worker in workers:
        worker.start()
    seen, deadline = -1, 0.0
    for worker in workers:
        while worker.is_alive() and not check.different:
            if sum(check.asked) != seen:
                seen, deadline = sum(check.asked), time.monotonic() + _SECONDS_WITHOUT_ANSWER
            elif time.monotonic() > deadline:
                raise ReadTimeout(
                    f"no answer from the file system for {_SECONDS_WITHOUT_ANSWER:g} s below {os.fsdecode(root)!r}: "
                    f"check its disk or network"
                )
            worker.join(0.5)
    return not check.different and sum(check.asked) == check.directories


class _Check:
    """The directories of a tree, asked by several threads, each its own share of them."""

    def __init__(self, root: bytes, arrays: Mapping[str, NDArray[Any]], threads: int) -> None:
        self._root = root
        self._stamps = arrays["folder_stamps"].reshape(-1, len(Stamp._fields))
        self._offsets, self._paths = arrays["folder_offsets"], arrays["folder_paths"]
        self.directories = len(self._stamps)
        self.different = False
        self.asked = [0] * threads

    def run(self, share: int) -> None:
        for i in range(share, self.directories, len(self.asked)):
            if self.different:
                return
            path = self._paths[self._offsets[i] : self._offsets[i + 1]].tobytes()
            try:
                now = stamp_of(os.stat(os.path.join(self._root, path)))
            except OSError:
                self.different = True
                return
            if [_signed(number) for number in now] != self._stamps[i].tolist():
                self.different = True
                return
            self.asked[share] += 1


def numbers_of(directory: Directory) -> list[int]:
    """A stamp as int64 holds it, in the order of its fields."""
    return [_signed(number) for number in directory.stamp]


def _signed(number: int) -> int:
    """A number of up to 64 bits, as int64 holds it; some file systems use all bits of an inode's."""
    return (number + 2**63) % 2**64 - 2**63
