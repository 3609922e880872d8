"""NVIDIA DALI with a pipeline on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, SIZE, Corpus


def open_way(
    corpus: Corpus, cores: int, tuned: bool, threads: int = 1, ahead: int = 2
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        tuned: without antialiasing, with the fast DCT and upsampling, and the settings that follow.
        threads: for each core.
        ahead: batches that are read ahead.
    """
    from importlib import import_module

    dali: Any = import_module("nvidia.dali")  # its stubs do not know all that it has
    fn, types = import_module("nvidia.dali.fn"), import_module("nvidia.dali.types")

    paths = corpus.paths()
    decoding = {"jpeg_fancy_upsampling": False, "use_fast_idct": True} if tuned else {}
    resizing = {"antialias": False} if tuned else {}

    @dali.pipeline_def(batch_size=BATCH, num_threads=threads * cores, device_id=None, prefetch_queue_depth=ahead)  # type: ignore[untyped-decorator]
    def photos() -> Any:
        content, _ = fn.readers.file(files=paths, shuffle_after_epoch=True, name="photos")
        images = fn.decoders.image(content, device="cpu", output_type=types.RGB, **decoding)
        return fn.resize(images, resize_x=SIZE, resize_y=SIZE, **resizing)

    pipeline = photos()
    pipeline.build()
    steps = len(paths) // BATCH

    def epoch() -> Iterator[npt.NDArray[Any]]:
        for _ in range(steps):
            (batch,) = pipeline.run()
            yield np.asarray(batch.as_tensor())

    return epoch
