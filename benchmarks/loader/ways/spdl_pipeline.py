"""SPDL's pipeline of threads, with its own decoder (FFmpeg) or with OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, SIZE, Corpus
from benchmarks.loader.ways.decode import from_path, whole_batch


def open_way(
    corpus: Corpus,
    cores: int,
    decoder: str,
    threads: int = 1,
    whole_batches: bool = False,
    reduce: bool = False,
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        decoder: "spdl" or "opencv".
        threads: for each core.
        whole_batches: paths are put together, and decoded in place; not images.
        reduce: decode at a reduced scale.
    """
    import spdl.io
    from spdl.pipeline import PipelineBuilder

    reduction = corpus.kind.reduction if reduce else 1
    paths = corpus.paths()
    count = threads * cores

    def by_spdl(some: list[str]) -> npt.NDArray[Any]:
        stretch = f"scale={SIZE}:{SIZE}:flags=bilinear,format=rgb24"  # width= and height= alone would add borders
        buffer = spdl.io.load_image_batch(some, width=None, height=None, pix_fmt=None, filter_desc=stretch)
        return np.asarray(spdl.io.to_numpy(buffer))

    def epoch() -> Iterator[npt.NDArray[Any]]:
        builder: Any = PipelineBuilder()
        builder = builder.add_source(paths)
        if decoder == "spdl":
            builder = builder.aggregate(BATCH).pipe(by_spdl, concurrency=count)
        elif whole_batches:
            builder = builder.aggregate(BATCH).pipe(lambda some: whole_batch(some, reduction), concurrency=count)
        else:
            builder = builder.pipe(from_path(decoder, reduction), concurrency=count).aggregate(BATCH).pipe(np.stack)
        pipeline = builder.add_sink(4).build(num_threads=count, max_failures=0)
        with pipeline.auto_stop():
            yield from pipeline.get_iterator(timeout=120)

    return epoch
