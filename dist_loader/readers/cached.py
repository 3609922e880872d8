"""A reader that keeps what it has decoded on a local disk, and takes it from there in later epochs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from dist_loader.cache import Cache, Contents
from dist_loader.errors import ConfigError
from dist_loader.readers import Reader
from dist_loader.remote.address import local_folder
from dist_loader.sizes import parse_bytes

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt


class CacheableReader(Reader, Protocol):
    """A reader of one array whose samples may be kept."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one sample's elements."""

    @property
    def samples(self) -> int:
        """How many there are."""

    @property
    def recipe(self) -> str:
        """All that decides the pixels, apart from the state of the files.

        Raises:
            ConfigError: they are not the same in every epoch.
        """

    def state(self, number: int) -> bytes | None:
        """What changes when a sample's file does, `cache.STATE_BYTES` bytes; None if that cannot be found out."""


class CachedReader:
    """Reads through a cache: what is in it is copied, what is not is read and kept.

    The state of a sample's file is looked up (one `stat`) when its entry is first read, so a file that was replaced
    since it was kept is read again. After that the entry counts: a training shows the same pixels to its end, and asks
    nothing more of the disk that the files are on. A sample that cannot be read is an error here as it is without a
    cache, and is not kept.

    Args:
        reader: reads what is not in the cache.
        folder: of the cache.
        limit: bytes that the caches in this folder take at most, a number or a size such as "50GiB"; None: what the
            disk has to spare (see `Cache`).

    Raises:
        ConfigError: the reader's samples differ from epoch to epoch, the limit is no size, the folder cannot be used.
    """

    def __init__(self, reader: CacheableReader, folder: str | os.PathLike[str], limit: int | str | None = None) -> None:
        self._reader = reader
        sample_bytes = reader.dtype.itemsize
        for length in reader.shape:
            sample_bytes *= length
        contents = Contents(reader.recipe, reader.samples, sample_bytes)
        self.cache = Cache(local_folder("cache", folder), contents, _parsed(limit))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._reader.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one sample's elements."""
        return self._reader.dtype

    def name(self, number: int) -> str:
        """What a person would call a sample."""
        return self._reader.name(number)

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: npt.NDArray[Any]) -> float:
        """Read samples into `out`, from the cache or the reader; seconds spent fetching what is stored.

        Raises:
            SampleError: a sample could not be read.
        """
        started = time.perf_counter()
        missing: dict[int, bytes | None] = {}  # by position in `out`
        pixels, length = _bytes_of(out), self.cache.contents.sample_bytes
        for at, number in enumerate(numbers.tolist()):
            place = pixels[at * length : (at + 1) * length]
            if self.cache.knows(number) and self.cache.read(number, None, place):
                continue
            # Before the pixels are read: if the file changes in between, what is kept is of a state that it is not in.
            state = self._reader.state(number)
            if state is None or not self.cache.read(number, state, place):
                missing[at] = state
        fetching = time.perf_counter() - started
        for first, end in _runs(list(missing)):
            fetching += self._reader.read(numbers[first:end], epoch, out[first:end]) or 0.0
            for at in range(first, end):
                state = missing[at]
                if state is not None:
                    self.cache.write(int(numbers[at]), state, pixels[at * length : (at + 1) * length])
        return fetching


def cached(reader: CacheableReader, folder: str | os.PathLike[str] | None, limit: int | str | None = None) -> Reader:
    """The reader with a cache in a folder, or as it is where there is none."""
    if folder is not None:
        return CachedReader(reader, folder, limit)
    if limit is not None:
        raise ConfigError(f"cache_bytes={limit!r} without cache: say in which folder the cache is")
    return reader


def _runs(positions: list[int]) -> list[tuple[int, int]]:
    """Ascending positions as ranges, (first, end): a reader may be faster with several at once."""
    runs: list[tuple[int, int]] = []
    for at in positions:
        if runs and runs[-1][1] == at:
            runs[-1] = runs[-1][0], at + 1
        else:
            runs.append((at, at + 1))
    return runs


def _bytes_of(samples: npt.NDArray[Any]) -> memoryview:
    return memoryview(samples).cast("B")  # type: ignore[arg-type]  # an array has a buffer


def _parsed(limit: int | str | None) -> int | None:
    if isinstance(limit, str):
        return parse_bytes(limit)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigError(f'cache_bytes must be a number of bytes or a size such as "50GiB", not {limit!r}')
    return limit
