"""Grain's MapDataset, with threads or with worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, Corpus
from benchmarks.loader.ways.decode import from_path, whole_batch


def open_way(
    corpus: Corpus,
    cores: int,
    decoder: str,
    threads: int = 1,
    processes: int = 0,
    whole_batches: bool = False,
    reduce: bool = False,
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        decoder: "pillow" or "opencv".
        threads: for each core; 8 is Grain's default on 2 cores.
        processes: for each core, of which each has such threads; 0: none.
        whole_batches: paths are put together, and decoded in place; not images.
        reduce: decode at a reduced scale.
    """
    import sys

    import grain

    if processes:
        from absl import flags

        flags.FLAGS(sys.argv[:1])  # Grain's processes want parsed flags
    reduction = corpus.kind.reduction if reduce else 1
    read = from_path(decoder, reduction)
    data: Any = grain.MapDataset.source(corpus.paths()).shuffle(seed=0)
    if whole_batches:
        data = data.batch(BATCH, batch_fn=list).map(lambda paths: whole_batch(paths, reduction))
    else:
        data = data.map(read).batch(BATCH)
    count = threads * cores
    ahead = 4 * cores  # batches
    data = data.to_iter_dataset(grain.ReadOptions(num_threads=count, prefetch_buffer_size=max(ahead, count)))
    if processes:
        data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=processes * cores, per_worker_buffer_size=2))
    return lambda: iter(data)
