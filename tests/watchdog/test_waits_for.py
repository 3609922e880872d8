"""What a sequence says that it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from dist_loader.index import Index
from dist_loader.readers.image import ImageReader
from dist_loader.sequence.image import ImageSequence


def test_a_sequence_names_the_file_that_it_waits_for(numbered: Callable[[int], Index], monkeypatch) -> None:
    index, read, go = numbered(8), ImageReader.read, threading.Event()

    def slowly(self, numbers, epoch, out):
        if 5 in numbers:
            assert go.wait(20)
        return read(self, numbers, epoch, out)

    monkeypatch.setattr(ImageReader, "read", slowly)
    sequence = ImageSequence(index, (8, 8), 4, shuffle=False, threads=1)
    try:
        assert sequence.waits_for(0) is None
        batches = sequence.get_numpy_iterator()
        next(batches)
        assert sequence.waits_for(0) is None
        assert sequence.waits_for(1) is None, "nobody has asked for it"
        drawing = threading.Thread(target=next, args=(batches,))
        drawing.start()
        deadline = time.monotonic() + 10
        name = Path(index.path(5)).name
        while name not in (sequence.waits_for(1) or "") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert name in sequence.waits_for(1)
        go.set()
        drawing.join()
        assert sequence.waits_for(1) is None
    finally:
        go.set()
        sequence.close()
