"""Files of this machine, as they are, whatever their size; and memory that is used again."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dist_loader.readers.scratch import KEPT, Scratch
from dist_loader.readers.source import LocalFiles


@pytest.mark.parametrize("sizes", [(0, 1, 70_000, 0, 3), (KEPT + 5, 10, KEPT, KEPT - 1)])
def test_files_come_as_they_are(sizes, tmp_path):
    files = LocalFiles()
    for number, size in enumerate(sizes):
        content = np.random.default_rng(number).bytes(size)
        (tmp_path / f"{number}").write_bytes(content)
        assert bytes(files.read(str(tmp_path / f"{number}"))) == content


def test_what_has_no_size_of_its_own_is_read_to_its_end():
    assert b"VmRSS" in bytes(LocalFiles().read("/proc/self/status"))


def test_what_cannot_be_read_is_an_error(tmp_path):
    for path, error in [("missing", FileNotFoundError), (".", IsADirectoryError)]:
        with pytest.raises(error):
            LocalFiles().read(str(tmp_path / path))


def test_a_thread_gets_its_memory_again_and_no_other_thread_does():
    scratch, barrier = Scratch(), threading.Barrier(4)

    def use(number):
        memory = scratch.of(1000)
        memory[:] = bytes([number]) * 1000
        barrier.wait(30)
        return bytes(memory) == bytes([number]) * 1000 and bytes(scratch.of(10)) == bytes([number]) * 10

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(use, range(4))) == [True] * 4
    assert len(scratch.of(KEPT + 1)) == KEPT + 1
    small = scratch.of(1000)
    assert scratch.of(KEPT + 1).obj is not small.obj
    assert scratch.of(5).obj is small.obj  # the large piece was not kept
