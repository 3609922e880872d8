"""Threads of one rank that list directories, a short while at a time."""

from __future__ import annotations

import os
import queue
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from dist_loader.errors import DistLoaderError, ReadTimeout
from dist_loader.index.scan import contents, encoded, identity_of, shown, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

_SECONDS_WITHOUT_ANSWER = 300.0
_MORE_THAN_THREADS = 2  # directories given to the threads for each of them, so that none has to wait for work


class Lister:
    """Lists directories in threads, which end when it is left.

    Args:
        top: the folder that paths are relative to.
        suffixes: what an image's name ends with.
        threads: how many directories are listed at the same time.

    Attributes:
        names: how many were seen so far, of files and directories.
    """

    def __init__(self, top: bytes, suffixes: Collection[str], threads: int) -> None:
        self._top = top
        self._endings = encoded(suffixes)
        self._given: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._listed: queue.SimpleQueue[tuple[tuple[int, bytes], Any]] = queue.SimpleQueue()
        self._identity = lru_cache(4096)(self._look_up)
        self._signs_of_life = 0
        self.names = 0
        self._seen, self._deadline = -1, 0.0
        self._under_way: dict[tuple[int, bytes], None] = {}
        self._threads = [
            threading.Thread(target=self._list_all, name=f"dist_loader-scan-{number}", daemon=True)
            for number in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        for _ in self._threads:  # none is waited for: it may be one that never comes back
            self._given.put(None)

    @property
    def busy(self) -> int:
        """How many directories are under way."""
        return len(self._under_way)

    def work(
        self, folders: Sequence[tuple[int, bytes]], seconds: float, add: Callable[[Any, Any], None]
    ) -> tuple[int, list[tuple[int, bytes]], DistLoaderError | None]:
        """List directories, in order, for some seconds at most.

        Args:
            folders: numbers of their classes, and paths with a slash at the end.
            seconds: then no more are begun, and those under way are left for the next call.
            add: called with each directory and what is in it, as `scan.contents` gives them.

        Returns:
            How many of the folders were begun; the directories below those listed; and an error, which ends it.
        """
        deadline = time.monotonic() + seconds
        begun, below = 0, list[tuple[int, bytes]]()
        most = _MORE_THAN_THREADS * len(self._threads)
        while True:
            while begun < len(folders) and len(self._under_way) < most:
                self._under_way[folders[begun]] = None
                self._given.put(folders[begun])
                begun += 1
            left = deadline - time.monotonic()
            if not self._under_way or left <= 0:
                return begun, below, self._silence()
            try:
                folder, found = self._listed.get(timeout=left)
            except queue.Empty:
                continue
            del self._under_way[folder]
            self._signs_of_life += 1
            if isinstance(found, BaseException):
                if isinstance(found, DistLoaderError):
                    return begun, below, found
                raise found
            add(*found)
            below += [(folder[0], part) for part in found[1] if isinstance(part, bytes)]

    def _silence(self) -> ReadTimeout | None:
        """The error of a file system that has stopped to answer."""
        if not self._under_way or self._seen != self._signs_of_life:
            self._seen, self._deadline = self._signs_of_life, time.monotonic() + _SECONDS_WITHOUT_ANSWER
        elif time.monotonic() > self._deadline:
            _, path = next(iter(self._under_way))
            return ReadTimeout(
                f"no answer from the file system for {_SECONDS_WITHOUT_ANSWER:g} s while listing "
                f"{shown(os.path.join(self._top, path))}: check its disk or network"  # noqa: PTH118 (bytes)
            )
        return None

    def _list_all(self) -> None:
        while (folder := self._given.get()) is not None:
            try:
                found: Any = contents(
                    self._top, *folder, self._endings, lambda identity: self._is_above(folder[1], identity), self._tell
                )
            except OSError as error:
                found = unreadable(os.path.join(self._top, folder[1]), error)  # noqa: PTH118 (bytes)
            except Exception as error:  # noqa: BLE001 (for the one who waits for it)
                found = error
            self._listed.put((folder, found))

    def _is_above(self, path: bytes, identity: tuple[int, int]) -> bool:
        """Whether a directory is one of those that a path leads through. Device numbers hold on this host only."""
        at = path.rstrip(b"/").rfind(b"/")
        while at >= 0:
            if self._identity(path[: at + 1]) == identity:
                return True
            at = path.rfind(b"/", 0, at)
        return self._identity(b"") == identity

    def _look_up(self, path: bytes) -> tuple[int, int]:
        return identity_of(os.stat(os.path.join(self._top, path)))  # noqa: PTH116, PTH118 (bytes)

    def _tell(self, names: int) -> None:
        self._signs_of_life += 1
        self.names += names
