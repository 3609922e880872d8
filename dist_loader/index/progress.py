"""A line about work that takes long, on stderr."""

from __future__ import annotations

import sys
import time

from dist_loader.errors import ConfigError
from dist_loader.world import World

_SECONDS_OF_SILENCE = 3.0
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_UPDATES = 0.2


class Progress:
    """Says how far some work has come: on a terminal in one line that changes, elsewhere in a line now and then.

    Work that is done within three seconds is not spoken of.

    Args:
        loud: whether to say anything; None: on rank 0 only.
    """

    def __init__(self, loud: bool | None = None) -> None:
        self._loud = _on_rank_zero() if loud is None else loud
        self._begun = time.monotonic()
        self._next = self._begun + _SECONDS_OF_SILENCE
        self._open_line = False

    def say(self, text: str) -> None:
        """Say it, if it is time for that."""
        now = time.monotonic()
        if not self._loud or now < self._next:
            return
        line = f"dist_loader: {text}, {now - self._begun:,.0f} s"
        if sys.stderr.isatty():
            self._next = now + _SECONDS_BETWEEN_UPDATES
            sys.stderr.write(f"\r{line}\033[K")
            self._open_line = True
        else:
            self._next = now + _SECONDS_BETWEEN_LINES
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """The work is over, or has failed."""
        if self._open_line:
            sys.stderr.write("\n")
            self._open_line = False


def _on_rank_zero() -> bool:
    try:
        return World.detect().chief
    except ConfigError:
        return True  # whoever needs to know the world will say what is wrong with it
