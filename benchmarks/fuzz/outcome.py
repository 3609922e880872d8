"""What the reader makes of one file: a picture, an error with a name, or something that must not be."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dist_loader.errors import SampleError
from dist_loader.index import Index
from dist_loader.readers.image import ImageReader
from dist_loader.readers.source import Source

Outcome = Literal["picture", "refused", "black", "leak", "other error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
SIZE = (24, 32)


class Trial:
    """Reads files that are in memory, through the reader of an `ImageSequence`, each into used memory.

    Args:
        other: a file that is read between the two times that a file is read.
    """

    def __init__(self, other: bytes) -> None:
        self._other = other
        self._now = other
        index = Index.from_paths(["/fuzz/image"], [0], ["class"])
        self._reader = ImageReader(index, SIZE, source=Source(self._content))

    def _content(self, path: str) -> bytes:
        return self._now

    def _read(self, data: bytes, before: int) -> npt.NDArray[np.uint8]:
        self._now = data
        out: npt.NDArray[np.uint8] = np.full((1, *self._reader.shape), before, np.uint8)
        self._reader.read(np.zeros(1, np.int64), 0, out)
        return out

    def of(self, data: bytes) -> Outcome:
        """What becomes of a file.

        "black": a picture without any light, though the file it was made of is not dark. "leak": two readings differ,
        so a part of the picture is of what was in the memory before. "other error": an error without a name.
        """
        try:
            first = self._read(data, 0x55)
        except SampleError:
            return "refused"
        except Exception:  # noqa: BLE001 (is what this is looking for)
            return "other error"
        self._read(self._other, 0)
        if (self._read(data, 0xAA) != first).any():
            return "leak"
        return "picture" if first.any() else "black"
