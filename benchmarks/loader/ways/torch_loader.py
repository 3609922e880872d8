"""PyTorch's DataLoader with worker processes that outlive an epoch."""

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
    workers: int = 1,
    ahead: int = 2,
    whole_batches: bool = False,
    reduce: bool = False,
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        decoder: "pillow" or "opencv".
        workers: for each core.
        ahead: batches that each worker reads ahead.
        whole_batches: the data set gives batches, decoded in place, in the place of images that are put together.
        reduce: decode at a reduced scale.
    """
    import torch
    from torch.utils.data import BatchSampler, DataLoader, RandomSampler

    reduction = corpus.kind.reduction if reduce else 1
    read = from_path(decoder, reduction)

    class Photos:
        """Pictures by number, or batches by numbers."""

        def __init__(self) -> None:
            self.paths = corpus.paths()

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, number: Any) -> Any:
            if whole_batches:
                return torch.from_numpy(whole_batch([self.paths[one] for one in number], reduction))
            return torch.from_numpy(
                read(self.paths[number]).copy() if decoder == "pillow" else read(self.paths[number])
            )

    photos: Any = Photos()
    how: dict[str, Any] = {"num_workers": workers * cores, "prefetch_factor": ahead, "persistent_workers": True}
    if whole_batches:
        sampler = BatchSampler(RandomSampler(photos), BATCH, drop_last=False)
        loader: Any = DataLoader(photos, batch_size=None, sampler=sampler, **how)
    else:
        loader = DataLoader(photos, batch_size=BATCH, shuffle=True, **how)

    def epoch() -> Iterator[npt.NDArray[Any]]:
        for batch in loader:
            yield batch.numpy()

    return epoch
