"""A Keras PyDataset, drawn from the way `fit` does: by Keras's own enqueuer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, Corpus
from benchmarks.loader.ways.decode import pillow, whole_batch


def open_way(
    corpus: Corpus, cores: int, decoder: str, workers: int = 1, processes: bool = False, reduce: bool = False
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        decoder: "pillow" or "opencv".
        workers: for each core.
        processes: workers are processes, not threads.
        reduce: decode at a reduced scale.
    """
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer

    reduction = corpus.kind.reduction if reduce else 1

    class Photos(keras.utils.PyDataset):  # type: ignore[misc]
        """Batches of pictures."""

        def __init__(self) -> None:
            super().__init__(workers=workers * cores, use_multiprocessing=processes, max_queue_size=10)
            self.paths = corpus.paths()

        def __len__(self) -> int:
            return math.ceil(len(self.paths) / BATCH)

        def __getitem__(self, step: int) -> npt.NDArray[Any]:
            some = self.paths[step * BATCH : (step + 1) * BATCH]
            if decoder == "pillow":
                return np.stack([pillow(path) for path in some])
            return whole_batch(some, reduction)

    photos = Photos()

    def epoch() -> Iterator[npt.NDArray[Any]]:
        enqueuer = OrderedEnqueuer(photos, photos.workers, processes, photos.max_queue_size)
        enqueuer.start()
        batches = enqueuer.get()
        for _ in range(len(photos)):
            yield next(batches)
        enqueuer.stop()

    return epoch
