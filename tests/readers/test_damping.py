"""The finest detail of a JPEG file, taken out of its tables: what remains, and which files are left alone."""

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from dist_loader.readers.damping import softer_tables, write_tables
from dist_loader.readers.header import header_of, segments
from tests.readers.support import photo


def encoded(image, quality=90, **options):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality, **options)
    return file.getvalue()


def damped(data, down, across):
    """The file with softer tables; None if it has none."""
    own = header_of(data)[0].tables
    soft = softer_tables(own, down, across)
    if soft is None:
        return None
    content = bytearray(data)
    write_tables(memoryview(content), soft)
    changed = bytes(content)
    write_tables(memoryview(content), own)
    assert content == data
    return changed


def tables(data):
    return Image.open(io.BytesIO(data)).quantization


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_entries_become_smaller_and_the_mean_stays(mode, options):
    data = encoded(photo(120, 90).convert(mode), **options)
    soft = damped(data, 2.0, 1.5)
    assert len(soft) == len(data)
    for before, after in zip(tables(data).values(), tables(soft).values(), strict=True):
        assert before[0] == after[0]
        assert all(ours <= theirs for ours, theirs in zip(after, before, strict=True))
        assert after[-1] < before[-1] / 4
    one, other = (simplejpeg.decode_jpeg(content).astype(float) for content in (data, soft))
    assert abs(one.mean() - other.mean()) < 0.5
    assert np.abs(np.diff(other, axis=0)).mean() < 0.8 * np.abs(np.diff(one, axis=0)).mean()


def test_a_side_that_does_not_shrink_keeps_its_detail():
    data = encoded(photo(120, 90))
    assert damped(data, 1, 1) == data
    across = damped(data, 1, 2)
    first, soft = tables(data)[0], tables(across)[0]
    assert first[8] == soft[8]  # down a column, in the order of rows
    assert first[7] > 4 * soft[7]


def test_fine_and_odd_tables_are_left_alone():
    fine = encoded(photo(64, 64), quality=100)
    assert damped(fine, 2, 2) is None
    data = encoded(photo(64, 64).convert("L"))
    at, table = header_of(data)[0].tables[0]
    end = at + len(table)
    wide = b"".join(entry.to_bytes(2, "big") for entry in table[1:])
    of_16_bits = data[: at - 2] + (131).to_bytes(2, "big") + b"\x10" + wide + data[end:]
    np.testing.assert_array_equal(simplejpeg.decode_jpeg(of_16_bits), simplejpeg.decode_jpeg(data))
    assert damped(of_16_bits, 2, 2) is None
    without = data[: at + 1] + bytes(64) + data[end:]
    assert damped(without, 2, 2) is None


@given(st.binary(max_size=60), st.integers(0, 700))
@example(b"\x00", 5)
def test_what_is_broken_is_not_read_beyond_its_end(noise, length):
    data = WHOLE[:length] + noise
    assert all(0 < at <= end for _, at, end in segments(data))
    damped(data, 2, 2)


WHOLE = encoded(photo(32, 32))
