"""How long each thread has been decoding one image, and which images took too long."""

from __future__ import annotations

import errno
import threading
import time
from dataclasses import replace
from types import TracebackType

from dist_loader.readers.source import Content, Source


class DecodeClock:
    """Is entered around each decoding, and knows which have taken too long.

    A thread that hangs in a decoder cannot be ended. It is given up: its image is noted as one that takes too long,
    which `source.read` from then on says without reading it, and what the thread held is free for others.

    Args:
        source: how files are read.
        limit: seconds that one image may take.
    """

    def __init__(self, source: Source, limit: float) -> None:
        self.limit = limit
        self._inner = source
        self._own = threading.local()  # the path that a thread reads, and how long it has fetched and waited
        self._began: dict[int, tuple[float, str]] = {}  # by thread; whoever removes an entry leaves `decoding`
        self._too_long: set[str] = set()
        self.source = replace(source, read=self._read, decoding=self)

    def _read(self, path: str) -> Content:
        if path in self._too_long:
            raise TimeoutError(errno.ETIMEDOUT, f"it took longer than {self.limit:g} s to decode")
        self._own.path = path
        began = time.perf_counter()
        try:
            return self._inner.read(path)
        finally:
            self._own.fetched = self.fetched() + time.perf_counter() - began

    def fetched(self) -> float:
        """Seconds that this thread has fetched files, in all, those that could not be had included."""
        return getattr(self._own, "fetched", 0.0)

    def waited(self) -> float:
        """Seconds that this thread has waited for its turn to decode, in all."""
        return getattr(self._own, "waited", 0.0)

    def __enter__(self) -> None:
        asked = time.perf_counter()
        self._inner.decoding.__enter__()
        self._own.waited = self.waited() + time.perf_counter() - asked
        self._began[threading.get_ident()] = time.monotonic(), self._own.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._began.pop(threading.get_ident(), None) is not None:
            self._inner.decoding.__exit__(kind, error, trace)

    def overdue(self) -> list[int]:
        """The threads that have been decoding one image for too long."""
        since = time.monotonic() - self.limit
        return [thread for thread, (began, _) in list(self._began.items()) if began < since]

    def give_up(self, thread: int) -> str | None:
        """Note what a thread decodes as one that takes too long; its path, or None if it just came to its end."""
        at_work = self._began.get(thread)
        if at_work is None or thread not in self.overdue() or self._began.pop(thread, None) is None:
            return None
        self._too_long.add(at_work[1])
        self._inner.decoding.__exit__(None, None, None)
        return at_work[1]
