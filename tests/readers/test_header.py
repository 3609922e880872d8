"""What a JPEG file says before its pixels: the same, whichever files were looked at before."""

import io

import pytest
from PIL import Image

from dist_loader.readers.header import header_of
from tests.readers.support import photo


def encoded(height, width, mode="RGB", **options):
    file = io.BytesIO()
    photo(height, width).convert(mode).save(file, "jpeg", **options)
    return file.getvalue()


def with_segment(data, content, marker=0xFE):
    return data[:2] + bytes((0xFF, marker)) + (2 + len(content)).to_bytes(2, "big") + content + data[2:]


def test_files_that_differ_in_their_size_alone_share_a_header():
    one, other = encoded(40, 56), encoded(33, 1000)
    assert header_of(one)[0] is header_of(other)[0]
    assert header_of(one)[1] == (40, 56, 3)
    assert header_of(other)[1] == (33, 1000, 3)
    assert header_of(encoded(40, 56, quality=50))[0] is not header_of(one)[0]
    assert header_of(encoded(40, 56, mode="L"))[1] == (40, 56, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xc0",
        b"\xff\xda",
        b"\xff\xc0\x00\x11\x08\x00\x07\x00\x09\x03" + bytes(9) + b"\xff\xda\x00\x0c\x03",
        encoded(24, 24)[2:],  # as a camera keeps a small picture in the file
        bytes(5000),  # more than is looked at for what files share
    ],
)
@pytest.mark.parametrize("progressive", [False, True])
def test_what_another_segment_holds_is_no_frame_and_no_scan(content, progressive):
    bare = encoded(40, 56, progressive=progressive)
    data = with_segment(bare, content)
    longer = len(data) - len(bare)
    for _ in range(2):  # also when it was seen before
        (own, size), (header, with_it) = header_of(bare), header_of(data)
        assert size == with_it == (40, 56, 3)
        assert header.one_scan is own.one_scan is not progressive
        assert header.scan == own.scan + longer
        assert header.tables == tuple((at + longer, table) for at, table in own.tables)
        assert Image.open(io.BytesIO(data)).quantization.keys() == {0, 1}


def test_a_camera_may_have_written_how_the_picture_lies():
    bare = encoded(40, 56)
    assert not header_of(bare)[0].exif
    assert header_of(with_segment(bare, b"Exif\0\0MM", marker=0xE1))[0].exif


def test_of_what_is_no_header_nothing_is_taken_for_one():
    data = encoded(40, 56)
    for length in range(3, 700):
        header, size = header_of(data[:length])
        assert size in (None, (40, 56, 3))
        assert (size is None) == (header.frame is None)
