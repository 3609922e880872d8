"""Where a training stands, and how often it is written down."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dist_loader.errors import ConfigError

_INTERVAL = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*(s|min|h)\s*", re.ASCII)
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True, order=True)
class Position:
    """So many epochs are done, and so many steps of the next one. Later positions are larger.

    Attributes:
        epoch: epochs done, validation included.
        step: optimizer updates made in the next epoch; all of them, when only its validation is missing.
    """

    epoch: int = 0
    step: int = 0

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step}"


@dataclass(frozen=True)
class Every:
    """How often a checkpoint is written: at the end of every epoch, and besides that as said here.

    Attributes:
        steps: after every so many steps of an epoch; None: not by steps.
        seconds: as soon as so many seconds have gone since the last one; None: not by time.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: int | str) -> Every:
        """As people write it: a number of steps, "30s", "10min", "2h", or "epoch".

        Raises:
            ConfigError: it is none of these.
        """
        if isinstance(value, str):
            if value.strip() == "epoch":
                return cls()
            if (interval := _INTERVAL.fullmatch(value)) is not None and float(interval[1]) > 0:
                return cls(seconds=float(interval[1]) * _SECONDS[interval[2]])
            value = int(value) if value.strip().isascii() and value.strip().isdigit() else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(
                f'checkpoint_every must be a number of steps of at least 1, or "30s", "10min", "2h", or "epoch", '
                f"not {value!r}"
            )
        return cls(steps=value)
