"""TensorFlow's threads that draw batches out of Python, and their way home when the program ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_SECONDS = 5.0
# TensorFlow stays in Python after a draw, to convert what was drawn or to report what was raised: milliseconds, more
# on a busy machine. Nothing tells when it has left.
_QUIET_SECONDS = 0.2


class Draws:
    """TensorFlow's threads that draw batches from a sequence, and how they are sent home when the program ends.

    A thread that is inside of Python when the interpreter ends never comes back, and TensorFlow, clearing up, would
    wait for it for ever.
    """

    def __init__(self) -> None:
        self._over = False
        self._inside: set[object] = set()  # passes in which a batch is being drawn right now
        self._left = -_QUIET_SECONDS  # when a draw ended last, in seconds of time.monotonic

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, as long as the program goes on."""
        this_pass = object()
        self._inside.add(this_pass)
        try:
            while not self._over:
                batch = next(batches, None)
                if batch is None:
                    return
                self._leave(this_pass)
                yield batch
                del batch  # or its frame would be held while the next one is waited for
                self._inside.add(this_pass)
        finally:
            self._leave(this_pass)

    def _leave(self, this_pass: object) -> None:
        self._inside.discard(this_pass)
        self._left = time.monotonic()

    def end(self) -> None:
        """Draw no more, and wait until nobody draws; called at the end of the program, after the window was closed."""
        self._over = True
        deadline = time.monotonic() + _MOST_SECONDS
        while self._inside or time.monotonic() < self._left + _QUIET_SECONDS:
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
