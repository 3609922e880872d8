"""Where a reader's bytes come from: files of this machine, unless it is told otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TypeAlias

from dist_loader.readers.opening import checked_length, checked_size, opened, with_retries
from dist_loader.readers.scratch import Scratch

Content: TypeAlias = bytes | memoryview

_LEAST = 1 << 18  # bytes


class LocalFiles:
    """Reads files of this machine."""

    def __init__(self) -> None:
        self._scratch = Scratch()

    def read(self, path: str) -> Content:
        """All of a file, until this thread reads the next one: it may be read into the same memory.

        Raises:
            OSError: it cannot be read, is no file, or is too large (see `opening`).
        """
        return with_retries(self._read, path)

    def _read(self, path: str) -> Content:
        file = opened(path)
        try:
            # Its size is asked for as seldom as can be: the answer of fstat costs as much as opening the file (20 us).
            memory = self._scratch.all(_LEAST)
            while (got := _read_into(memory, file)) == len(memory):
                checked_length(got)
                memory = self._scratch.of(max(2 * got, checked_size(file) + 1))
            if not got:
                checked_size(file)
            return memory[:got]
        except OSError:
            checked_size(file)  # if it is no file, that is the reason
            raise
        finally:
            os.close(file)


def _read_into(memory: memoryview, file: int) -> int:
    """As much of a file, from its beginning, as there is memory for; how many bytes that is."""
    got = 0
    while more := os.preadv(file, (memory[got:],), got):
        got += more
    return got


@dataclass(frozen=True)
class Source:
    """How files are read, from several threads at once, and what a thread holds while it decodes one.

    Attributes:
        read: from a path, as the index gives it, to the file's content, which need not outlast the thread's next call.
        decoding: entered around the decoding. Remote files are waited for by many more threads than there are cores;
            there it lets only as many decode at the same time.
    """

    read: Callable[[str], Content] = field(default_factory=lambda: LocalFiles().read)
    decoding: AbstractContextManager[object] = field(default_factory=nullcontext)
