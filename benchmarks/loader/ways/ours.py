"""dist_loader's ImageSequence, alone: an epoch of `sequence[step]`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, SIZE, Corpus

HOST_BATCH = "1GiB"  # the default; the sequence holds no more than an epoch


def open_sequence(corpus: Corpus, cores: int, threads: float) -> Any:
    """The sequence over a corpus."""
    import dist_loader as dl

    index = dl.Index.from_directory(corpus.images)
    return dl.ImageSequence(
        index, (SIZE, SIZE), BATCH, host_batch=HOST_BATCH, threads=max(1, round(threads * cores)), remainder="weight"
    )


def open_way(corpus: Corpus, cores: int, threads: float) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package."""
    sequence = open_sequence(corpus, cores, threads)

    def epoch() -> Iterator[npt.NDArray[Any]]:
        sequence.read_ahead_to(sequence.epoch + 1)  # nothing of the next round is read in this one
        for step in range(len(sequence)):
            yield sequence[step][0]
        sequence.epoch += 1

    return epoch
