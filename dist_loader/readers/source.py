"""Where a reader's bytes come from: files of this machine, unless it is told otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from dist_loader.readers.opening import checked_size, opened, read_rest, with_retries


def read_file(path: str) -> bytes:
    """All of a file of this machine.

    Raises:
        OSError: it cannot be read, is no file, or is too large (see `opening`).
    """
    return with_retries(_content, path)


def _content(path: str) -> bytes:
    fd = opened(path)
    try:
        size = checked_size(fd)
        data = os.read(fd, size + 1)
        return data if len(data) == size > 0 else read_rest(fd, data)
    finally:
        os.close(fd)


@dataclass(frozen=True)
class Source:
    """How files are read, from several threads at once, and what a thread holds while it decodes one.

    Attributes:
        read: from a path, as the index gives it, to the file's content.
        decoding: entered around the decoding. Remote files are waited for by many more threads than there are cores;
            there it lets only as many decode at the same time.
    """

    read: Callable[[str], bytes] = read_file
    decoding: AbstractContextManager[object] = field(default_factory=nullcontext)
