"""A rank's output, handed on in whole lines, so that the launcher can put the rank's name before each."""

from __future__ import annotations

import os
import threading
from typing import IO

LONGEST = 64 * 1024  # bytes that are waited for the end of a line


class Relay:
    """Copies a pipe to a file descriptor, a line at a time, in a thread.

    Python writes the parts of a line one by one when it does not buffer, and mpirun tags each part.

    Args:
        pipe: to read from, until its end.
        descriptor: to write to. When nobody reads that any more, the rest is read and dropped.
    """

    def __init__(self, pipe: IO[bytes], descriptor: int) -> None:
        self._pipe = pipe
        self._descriptor = descriptor
        self._thread = threading.Thread(target=self._copy, name="dist_loader-output", daemon=True)
        self._thread.start()

    def finish(self, seconds: float) -> None:
        """Wait for the end of the pipe, but no longer than that."""
        self._thread.join(seconds)

    def _copy(self) -> None:
        rest = b""
        while piece := os.read(self._pipe.fileno(), LONGEST):
            lines, rest = whole_lines(rest + piece)
            self._write(lines)
        self._write(rest)

    def _write(self, text: bytes) -> None:
        try:
            while text:
                text = text[os.write(self._descriptor, text) :]
        except OSError:  # nobody reads it
            pass


def whole_lines(text: bytes) -> tuple[bytes, bytes]:
    """A text up to its last end of a line, and the rest; progress bars end lines by a carriage return."""
    cut = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
    if not cut and len(text) >= LONGEST:
        cut = len(text)
    return text[:cut], text[cut:]
