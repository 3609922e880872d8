"""One list of bad samples at rank 0, also where the ranks' hosts do not share the folder that it is in."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from dist_loader.bad_samples.file import BadSample

if TYPE_CHECKING:
    from dist_loader.bad_samples.register import BadSamples
    from dist_loader.channel import Channel

_log = logging.getLogger("dist_loader")

_WHAT = "gathering the bad samples"
_MOST_BYTES = 1 << 26  # that a rank sends


def gather(channel: Channel, registers: Sequence[BadSamples], seconds: float | None) -> int:
    """Bring to rank 0's file what it lacks; how many samples no rank could read.

    What is in a file that the ranks share, rank 0 knows, and nobody sends it.

    Args:
        channel: of all ranks, which call this alike.
        registers: of this rank's sequences, the same ones on every rank.
        seconds: that a rank is waited for; None: something else watches.
    """
    known: set[int] = set()
    for bad in registers:
        marks = [np.frombuffer(row, np.int64) for row in channel.allgather(bad.marks().tobytes(), _WHAT, seconds)]
        known.update(*(row.tolist() for row in marks))
        lines = "".join(json.dumps(asdict(one)) + "\n" for one in bad.unknown_to(marks[0]))
        if len(lines) > _MOST_BYTES:
            _log.warning(
                "rank %d: only a part of its bad samples goes to rank 0; all are in %s", channel.rank, bad.file
            )
            lines = lines[: lines.rindex("\n", 0, _MOST_BYTES) + 1]
        rows = channel.gather(lines.encode() if bad.file is not None else b"", _WHAT, seconds)
        bad.take_in([BadSample(**json.loads(line)) for row in rows[1:] for line in bytes(row).splitlines()])
    return len(known)
