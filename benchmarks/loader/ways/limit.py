"""The limit: files in RAM, decoded and resized into the same memory over and over, one process per core.

No loader does less work for each image. Colors are interpolated the fast way (libjpeg's "fancy upsampling" takes 3%
more), an image without colors gets them after it was resized, and resizing is OpenCV's bilinear filter without
antialiasing, the fastest found.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from multiprocessing import Pipe, Process, Value
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.loader.corpus import SIZE, Corpus
from benchmarks.loader.measure import Epoch, Seen
from benchmarks.loader.ways.decode import opencv, opencv_flags

OBSERVES = True
_SHARE = 16  # files that a process takes at once

Decode = Callable[[bytes, npt.NDArray[np.uint8]], Any]


def open_way(corpus: Corpus, cores: int, decoder: str, reduce: bool = False) -> Epoch:
    """See the package.

    Args:
        corpus: the files.
        cores: so many processes.
        decoder: "simplejpeg", "opencv" or "pillow".
        reduce: decode at the largest reduction that covers the target.
    """
    files = [Path(path).read_bytes() for path in corpus.paths()]
    reduction = corpus.kind.reduction if reduce else 1
    decode = _decoder(decoder, reduction, gray=corpus.kind.name == "gray")
    taken = Value("q", 0)  # how many files the processes have begun, so that one that is held up holds up no other
    processes: list[Connection] = []
    for _ in range(cores):
        here, there = Pipe()
        # A fork: the files are in memory once.
        Process(target=_decode_share, args=(there, files, taken, decode), daemon=True).start()
        there.close()
        processes.append(here)

    def epoch(seen: Seen) -> None:
        taken.value = 0
        for process in processes:
            process.send(seen.thorough)
        for process in processes:
            seen.merge(process.recv())

    return epoch


def _decode_share(parent: Connection, files: list[bytes], taken: Any, decode: Decode) -> None:
    batch = np.empty((_SHARE, SIZE, SIZE, 3), np.uint8)
    while True:
        try:
            thorough = parent.recv()
        except EOFError:
            return
        seen = Seen(thorough)
        while True:
            with taken.get_lock():
                start = taken.value
                taken.value += _SHARE
            some = files[start : start + _SHARE]
            if not some:
                break
            for data, out in zip(some, batch, strict=False):
                decode(data, out)
            seen.add(batch[: len(some)])
        parent.send(seen)


def _decoder(name: str, reduction: int, gray: bool) -> Decode:
    if name == "opencv":
        flags = opencv_flags(reduction)
        return lambda data, out: opencv(data, flags, out)
    import cv2

    cv2.setNumThreads(0)
    if name == "simplejpeg":
        import simplejpeg

        at_least = SIZE if reduction > 1 else 0  # scales above one half decode slower than the whole

        options = {"min_height": at_least, "min_width": at_least, "fastupsample": True}

        def decode(data: bytes, out: npt.NDArray[np.uint8]) -> None:
            if gray:
                image = cv2.resize(simplejpeg.decode_jpeg(data, "GRAY", **options), (SIZE, SIZE))
                cv2.cvtColor(image, cv2.COLOR_GRAY2RGB, dst=out)
            else:
                cv2.resize(simplejpeg.decode_jpeg(data, "RGB", **options), (SIZE, SIZE), dst=out)

        return decode
    from PIL import Image

    def decode_by_pillow(data: bytes, out: npt.NDArray[np.uint8]) -> None:
        with Image.open(io.BytesIO(data)) as image:
            if reduction > 1:
                image.draft("RGB", (SIZE, SIZE))
            cv2.resize(np.asarray(image.convert("RGB")), (SIZE, SIZE), dst=out)

    return decode_by_pillow
