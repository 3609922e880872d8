"""WebDataset: the same files in tar shards, read through its WebLoader, which is PyTorch's DataLoader."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, Corpus
from benchmarks.loader.ways.decode import Picture, opencv, opencv_flags, pillow

_SHARDS = 16


def open_way(
    corpus: Corpus, cores: int, decoder: str, workers: int = 1, reduce: bool = False
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        decoder: "pillow" or "opencv".
        workers: for each core.
        reduce: decode at a reduced scale.
    """
    import torch
    import webdataset

    suffix = corpus.kind.suffix
    flags = opencv_flags(corpus.kind.reduction if reduce else 1)
    shards = pack(corpus, max(_SHARDS, 2 * workers * cores))

    def decode(sample: dict[str, Any]) -> Any:
        picture: Picture = pillow(io.BytesIO(sample[suffix])) if decoder == "pillow" else opencv(sample[suffix], flags)
        return torch.from_numpy(picture.copy())

    data = webdataset.WebDataset(shards, shardshuffle=len(shards)).map(decode).batched(BATCH, collation_fn=torch.stack)
    loader = webdataset.WebLoader(
        data, batch_size=None, num_workers=workers * cores, persistent_workers=True, prefetch_factor=2
    )

    def epoch() -> Iterator[npt.NDArray[Any]]:
        for batch in loader:
            yield batch.numpy()

    return epoch


def pack(corpus: Corpus, shards: int) -> list[str]:
    """Write the corpus's files as tar shards beside it, once."""
    paths = corpus.paths()
    made = []
    for number in range(shards):
        shard = corpus.folder / f"shard-{number:03d}-of-{shards:03d}.tar"
        made.append(str(shard))
        if shard.exists():
            continue
        unfinished = shard.with_suffix(".unfinished")
        with tarfile.open(unfinished, "w") as tar:
            for path in paths[number::shards]:
                tar.add(path, arcname=Path(path).name)
        unfinished.rename(shard)
    return made
