"""One index made by all ranks: the directories are dealt out again and again, and rank 0 puts in order what was found.

In short rounds, every rank lists directories of its share and tells the others which it took and what lies below. The
rest is dealt out anew, so that nobody waits long for a rank with large directories or a slow disk, and one large class
is divided as many small ones are. A single directory is listed by one rank: the system hands its entries out one after
the other. Paths stay where they were found, in flat memory, until rank 0 writes them.
"""

from __future__ import annotations

import json
import os
import socket
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dist_loader.errors import ConfigError, DistLoaderError
from dist_loader.index.build import how_far, no_images, numbered
from dist_loader.index.file import Blocks
from dist_loader.index.lister import Lister
from dist_loader.index.scan import Files, class_folders, shown
from dist_loader.index.stamps import Directory, Stamps, numbers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from dist_loader.channel import Channel, Data

_FIRST_ROUND, _LONGEST_ROUND = 0.05, 0.5  # seconds
_SECONDS = 900.0  # that a rank is waited for; after 300 s without an answer of its disk it says so itself

Folder = tuple[int, bytes]  # number of the class, path with a slash at the end


class Gathered(NamedTuple):
    """What all ranks found, on rank 0, as the arrays of an index that are made while they are written."""

    classes: tuple[str, ...]
    arrays: dict[str, Blocks]
    stamps: Stamps
    folders: int


def gathered(
    channel: Channel,
    top: bytes,
    suffixes: Collection[str],
    classes: tuple[str, ...] | None,
    threads: int,
    say: Callable[[str], None],
) -> Gathered | None:
    """Finds the images as `Index.from_directory` does, on all ranks; on rank 0, what all of them found.

    Args:
        channel: of all ranks, which call this alike.
        top: the folder of class folders, absolute.
        suffixes: what an image's name ends with.
        classes: the classes and their numbering; None: the folders in byte order.
        threads: how many directories each rank lists at the same time.
        say: called on rank 0 from time to time with how far all are.

    Raises:
        ConfigError: on every rank, if a folder cannot be read on one of them.
        ChannelError: a rank did not come.
    """
    stamps = Stamps()
    names: tuple[str, ...] = ()

    def first() -> Any:
        nonlocal names
        folders, seen = class_folders(top, suffixes)
        for directory in seen:
            stamps.add(directory)
        names, number = numbered(folders, classes, top)
        return sorted((number[folder], os.fsdecode(folder + b"/")) for folder in folders)

    to_list = on_rank_zero(channel, first, f"listing {shown(top)}")
    frontier = [(number, os.fsencode(path)) for number, path in to_list]
    own = _Found()
    _rounds(channel, top, suffixes, frontier, threads, own, say)
    what = f"gathering the list of {shown(top)}"
    parts = [channel.gather(memoryview(data).cast("B"), what, _SECONDS) for data in own.buffers()]

    def merged() -> Gathered:
        found = _Merged(*parts[:3])
        if not found.samples:
            raise no_images(top, len(frontier), suffixes)
        for paths, lengths, marks in zip(*parts[3:], strict=True):
            stamps.add_all(bytes(paths), np.frombuffer(lengths, np.int64), np.frombuffer(marks, np.int64))
        return Gathered(names, found.arrays(), stamps, sum(len(lengths) // 8 for lengths in parts[4]))

    result: list[Gathered] = []
    on_rank_zero(channel, lambda: result.append(merged()), f"merging the list of {shown(top)}", _SECONDS)
    return result[0] if result else None


def on_rank_zero(channel: Channel, make: Callable[[], Any], what: str, seconds: float = _SECONDS) -> Any:
    """What rank 0 makes (as JSON can hold it), on every rank; and if it fails, its error on every rank."""
    told, error = {}, None
    if channel.rank == 0:
        try:
            told = {"made": make()}
        except DistLoaderError as failure:
            told, error = {"error": str(failure)}, failure
    told = json.loads(bytes(channel.broadcast(json.dumps(told).encode(), what, seconds)))
    if error is not None:
        raise error
    if "error" in told:
        raise ConfigError(told["error"])
    return told["made"]


def _rounds(
    channel: Channel,
    top: bytes,
    suffixes: Collection[str],
    frontier: Sequence[Folder],
    threads: int,
    own: _Found,
    say: Callable[[str], None],
) -> None:
    """List all directories from the class folders down."""
    seconds = _FIRST_ROUND
    with Lister(top, suffixes, threads) as lister:
        while True:
            mine = frontier[channel.rank :: channel.size]
            taken, below, error = lister.work(mine, seconds, own.add)
            report = {
                "taken": taken,
                "below": [(number, os.fsdecode(path)) for number, path in below],
                "busy": lister.busy,
                "images": len(own.lengths),
                "folders": len(own.directory_lengths),
                "names": lister.names,
                "error": None if error is None else f"{_who(channel)}{error}",
            }
            what = f"listing {shown(top)}"
            reports = [json.loads(bytes(row)) for row in channel.allgather(json.dumps(report).encode(), what, _SECONDS)]
            for row in reports:
                if row["error"]:
                    raise ConfigError(row["error"])
            rest = [
                folder for rank, row in enumerate(reports) for folder in frontier[rank :: channel.size][row["taken"] :]
            ]
            rest += [(number, os.fsencode(path)) for row in reports for number, path in row["below"]]
            frontier = sorted(rest)
            say(how_far(top, *(sum(row[what] for row in reports) for what in ("images", "folders", "names"))))
            if not frontier and not any(row["busy"] for row in reports):
                return
            seconds = min(_LONGEST_ROUND, 2 * seconds)


def _who(channel: Channel) -> str:
    return "" if channel.size == 1 else f"rank {channel.rank} on {socket.gethostname()}: "


class _Found:
    """What this rank has listed, in flat memory."""

    def __init__(self) -> None:
        self.paths, self.lengths, self.runs = bytearray(), array("i"), array("q")
        self.directories, self.directory_lengths, self.stamps = bytearray(), array("q"), array("q")

    def add(self, directory: Directory, parts: Sequence[Files | bytes]) -> None:
        self.directories += directory.path
        self.directory_lengths.append(len(directory.path))
        self.stamps.extend(numbers_of(directory))
        for part in parts:
            if isinstance(part, Files):
                self.paths += part.paths
                self.lengths.frombytes(part.lengths.tobytes())
                self.runs.extend((part.folder, len(part.lengths), len(part.paths)))

    def buffers(self) -> tuple[Any, ...]:
        return self.paths, self.lengths, self.runs, self.directories, self.directory_lengths, self.stamps


class _Merged:
    """All ranks' runs of images in one order: of the classes' numbers, then of the paths.

    A run is the images of one directory between two directories in it. Paths of other directories lie all before or all
    behind it, so that runs in the order of their first paths are all paths in order.
    """

    def __init__(self, paths: Sequence[Data], lengths: Sequence[Data], runs: Sequence[Data]) -> None:
        self._paths = [np.frombuffer(data, np.uint8) for data in paths]
        self._lengths = [np.frombuffer(data, np.int32) for data in lengths]
        tables = [np.frombuffer(data, np.int64).reshape(-1, 3) for data in runs]
        self._rank = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        self._first = np.concatenate([_starts(table[:, 1]) for table in tables])  # of a run: its first image
        self._start = np.concatenate([_starts(table[:, 2]) for table in tables])  # and its first byte
        table = np.concatenate(tables)
        self._number, self._count, self._bytes = table[:, 0], table[:, 1], table[:, 2]
        self.samples, self._total = int(self._count.sum()), int(self._bytes.sum())
        self._order = self._ordered()

    def _ordered(self) -> NDArray[np.int64]:
        by_class = np.argsort(self._number, kind="stable")
        cuts = np.flatnonzero(np.diff(self._number[by_class])) + 1
        # One class at a time: a key for each of its directories, not for all directories there are.
        classes = [sorted(runs.tolist(), key=self._key) for runs in np.split(by_class, cuts)]
        return np.fromiter((run for runs in classes for run in runs), np.int64, len(by_class))

    def _key(self, run: int) -> bytes:
        rank, start = self._rank[run], self._start[run]
        path: NDArray[np.uint8] = self._paths[rank][start : start + self._lengths[rank][self._first[run]]]
        return path.tobytes()

    def arrays(self) -> dict[str, Blocks]:
        return {
            "offsets": Blocks(np.dtype(np.int64), self.samples + 1, _Again(self._offset_blocks)),
            "labels": Blocks(np.dtype(np.int32), self.samples, _Again(self._label_blocks)),
            "paths": Blocks(np.dtype(np.uint8), self._total, _Again(self._path_blocks)),
        }

    def _offset_blocks(self) -> Iterator[NDArray[Any]]:
        end = np.zeros(1, np.int64)
        yield end
        for run in self._order:
            first = self._first[run]
            end = end[-1] + np.cumsum(self._lengths[self._rank[run]][first : first + self._count[run]], dtype=np.int64)
            yield end

    def _label_blocks(self) -> Iterator[NDArray[Any]]:
        for run in self._order:
            yield np.full(self._count[run], self._number[run], np.int32)

    def _path_blocks(self) -> Iterator[NDArray[Any]]:
        for run in self._order:
            yield self._paths[self._rank[run]][self._start[run] : self._start[run] + self._bytes[run]]


class _Again:
    """Blocks that can be gone through more than once."""

    def __init__(self, blocks: Callable[[], Iterator[NDArray[Any]]]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self._blocks()


def _starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(lengths) - lengths
