"""Where a reader's bytes come from: files of this machine, unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field


def read_file(path: str) -> bytes:
    """All of a file of this machine.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path costs more than the opening)
        return file.read()


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
