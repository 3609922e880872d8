"""What becomes of a bad sample's place, and how many may be bad: pure functions of what a user asks for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

from dist_loader.errors import ConfigError

OnBad = Literal["raise", "replace", "weight0"]

_TRIES = 16
_USUAL_PART = 100  # one of so many samples may be bad, unless a user says otherwise
_USUAL_LEAST = 16  # and in a small index so many, but no more than half of it


def checked_on_bad(value: object) -> OnBad:
    """The value, if it is a policy.

    Raises:
        ConfigError: it is none.
    """
    for known in get_args(OnBad):
        if value == known:
            return known  # type: ignore[no-any-return]  # get_args has no types
    raise ConfigError(f"on_bad must be one of {', '.join(get_args(OnBad))}, not {value!r}")


def budget_in_samples(budget: float | None, samples: int) -> int:
    """How many samples of an index may be bad before the job stops.

    Args:
        budget: a number of samples (an int), or a share of the index (a float of 0 to 1, rounded down). None: one of a
            hundred, but in small indexes up to 16, though never more than half of the samples.
        samples: in the index.

    Raises:
        ConfigError: it is neither.
    """
    if budget is None:
        return max(samples // _USUAL_PART, min(_USUAL_LEAST, samples // 2))
    if isinstance(budget, int | np.integer) and not isinstance(budget, bool) and budget >= 0:
        return int(budget)
    if isinstance(budget, float | np.floating) and 0 <= budget <= 1:
        return math.floor(float(budget) * samples)
    raise ConfigError(
        f"bad_budget must be a number of samples such as 100, or a share of them from 0.0 to 1.0, not {budget!r}"
    )


def stand_ins(sample: int, epoch: int, seed: int, samples: int) -> Iterator[int]:
    """The samples that may take a bad one's place, in the order in which they are tried; at most 16.

    They follow from the arguments alone, so they are the same on any rank, in any thread and after a resume.

    Args:
        sample: the bad one's number in the index.
        epoch: 0 or more.
        seed: of the shuffling, any int.
        samples: in the index.
    """
    if samples < 2:
        return
    for number in range(_TRIES):
        text = f"{seed:x},{epoch:x},{sample:x},{number:x}".encode()
        digest = hashlib.blake2b(text, digest_size=16, person=b"dist_loader.bad").digest()
        other = int.from_bytes(digest, "little") % (samples - 1)  # 128 bits: no number is likelier that one would see
        yield other + (other >= sample)
