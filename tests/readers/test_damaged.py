"""Files that are no images, or only a part of one: an error that names them, never a picture."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from dist_loader.errors import SampleError
from dist_loader.readers.image import ImageReader
from tests.readers.support import HEIGHT, WIDTH, folder, index_of, photo, pixels, read


def caught_error(path):
    reader = ImageReader(index_of(path.parents[1]), (4, 4))
    with pytest.raises(SampleError) as caught:
        read(reader)
    error = caught.value
    assert error.sample == 0
    assert error.path == str(path)
    assert error.reason
    assert len(str(error).splitlines()) == 1
    assert repr(str(path)) in str(error)
    assert str(error).endswith(error.reason)
    return error


def content_of(kind):
    file = io.BytesIO()
    image = photo(100, 150)
    if kind == "cmyk":
        image.convert("CMYK").save(file, "jpeg", quality=90)
    elif kind == "gray":
        image.convert("L").save(file, "jpeg", quality=90)
    elif kind == "progressive":
        image.save(file, "jpeg", quality=90, progressive=True)
    else:
        image.save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "gray", "cmyk", "png", "bmp", "gif", "webp", "tiff"])
def test_a_truncated_file_is_an_error_and_never_a_picture(kind, tmp_path):
    path = folder(tmp_path, "image.jpg")
    whole = content_of(kind)
    path.write_bytes(whole)
    index = index_of(tmp_path)
    for tenth in range(10):
        path.write_bytes(whole[: tenth * len(whole) // 10])
        for size in ((4, 4), (100, 150), (300, 200)):
            with pytest.raises(SampleError) as caught:
                read(ImageReader(index, size))
            assert caught.value.path == str(path)


@pytest.mark.parametrize("garbage", [b"", bytes(20), b"\xff" * 20, b"ab\xff\0" * 9])
def test_a_jpeg_with_restarts_that_ends_too_early_is_an_error(garbage, tmp_path):
    """libjpeg says "extraneous bytes before the end" of it, as it does of harmless bytes there."""
    path = folder(tmp_path, "image.jpg")
    file = io.BytesIO()
    photo(100, 150).save(file, "jpeg", quality=90, restart_marker_blocks=5)
    whole = file.getvalue()
    path.write_bytes(whole[:-2] + garbage + whole[-2:])
    read(ImageReader(index_of(tmp_path), (50, 50)))
    half = whole[: len(whole) // 2].rindex(b"\xff\xd3")  # between two restarts
    path.write_bytes(whole[:half] + b"pixels?" + garbage + b"\xff\xd9")
    caught_error(path)
    path.write_bytes(whole[: half + 40] + garbage + b"\xff\xd9")
    caught_error(path)


@pytest.mark.parametrize("kind", ["jpeg", "gray", "cmyk"])
def test_a_jpeg_with_a_hole_is_an_error(kind, tmp_path):
    path = folder(tmp_path, "image.jpg")
    whole = content_of(kind)
    path.write_bytes(whole[: len(whole) // 2] + whole[len(whole) * 3 // 4 :])
    assert "Corrupt JPEG data" in caught_error(path).reason


def test_a_jpeg_of_twelve_bits_is_an_error(tmp_path):
    path = folder(tmp_path, "image.jpg")
    whole = content_of("jpeg")
    at = whole.index(b"\xff\xc0")
    path.write_bytes(whole[: at + 4] + b"\x0c" + whole[at + 5 :])
    caught_error(path)


@pytest.mark.parametrize("fault", ["bytes before the end", "version", "bytes after the end"])
def test_a_jpeg_with_a_fault_that_costs_no_pixel_is_a_picture(fault, tmp_path):
    whole = content_of("jpeg")
    folder(tmp_path, "0.jpg").write_bytes(whole)
    faulty = {
        "bytes before the end": whole[:-2] + bytes(20) + whole[-2:],
        "version": whole.replace(b"JFIF\0\1", b"JFIF\0\7", 1),
        "bytes after the end": whole + bytes(300),
    }[fault]
    folder(tmp_path, "1.jpg").write_bytes(faulty)
    plain, got = read(ImageReader(index_of(tmp_path), (100, 150)), [0, 1])
    np.testing.assert_array_equal(got, plain)


def test_a_jpeg_that_is_left_to_pillow_after_all_has_its_own_tables_again(tmp_path):
    """For libjpeg they were exchanged, since the image shrinks."""
    path = folder(tmp_path, "0.jpg")
    whole = content_of("jpeg")
    path.write_bytes(whole[:-2] + bytes(20) + whole[-2:])
    with Image.open(path) as image:
        size = round(image.height / 1.8), round(image.width / 1.8)
        wanted = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(read(ImageReader(index_of(tmp_path), size))[0], wanted)


def test_a_progressive_jpeg_without_its_first_scans_is_an_error_though_it_was_closed_again(tmp_path):
    path = folder(tmp_path, "image.jpg")
    whole = content_of("progressive")
    path.write_bytes(whole)
    expected = read(ImageReader(index_of(tmp_path), (100, 150)))[0].astype(int)
    ends = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"][1:]
    kept = 0
    for end in ends:
        path.write_bytes(whole[:end] + b"\xff\xd9")
        try:
            got = read(ImageReader(index_of(tmp_path), (100, 150)))[0]
        except SampleError as error:
            assert "scans are missing" in error.reason
            assert not kept
        else:  # the last digits of its coefficients may be missing
            kept += 1
            assert np.abs(got - expected).mean() < 8
    assert 0 < kept < len(ends)


@pytest.mark.parametrize("kind", ["jpeg", "progressive", "gray", "cmyk"])
@pytest.mark.parametrize("fault", ["version", "bytes before a segment", "adobe", "nothing"])
def test_a_harmless_fault_hides_no_damage(kind, fault, tmp_path):
    """libjpeg tells of the first fault alone: with an odd version in the header, a half gray picture passed once."""
    path = folder(tmp_path, "image.jpg")
    whole = content_of(kind)
    frame = whole.index(b"\xff\xdb")
    harmless = {
        "version": whole.replace(b"JFIF\0\1", b"JFIF\0\7", 1),
        "bytes before a segment": whole[:frame] + b"garbage" + whole[frame:],
        "adobe": whole[:frame] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x09" + whole[frame:],
        "nothing": whole,
    }[fault]
    path.write_bytes(harmless)
    reader = ImageReader(index_of(tmp_path), (100, 150))
    read(reader)
    start, end = (0.25, 0.4) if kind == "progressive" else (0.5, 0.75)
    path.write_bytes(harmless[: int(len(harmless) * start)] + harmless[int(len(harmless) * end) :])
    caught_error(path)


@pytest.mark.parametrize("exif", [b"", b"garbage", b"II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0", b"\xff" * 50])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_jpeg_with_broken_exif_is_a_picture(exif, tmp_path):
    whole = content_of("jpeg")
    content = b"Exif\0\0" + exif
    segment = b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content
    folder(tmp_path, "0.jpg").write_bytes(whole)
    folder(tmp_path, "1.jpg").write_bytes(whole[:2] + segment + whole[2:])
    plain, got = read(ImageReader(index_of(tmp_path), (50, 50)), [0, 1])
    np.testing.assert_array_equal(got, plain)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image"),
        (b"not an image at all\n" * 100, "not an image"),
        (bytes(1000), "not an image"),
        (b"\xff\xd8\xff", ""),
        (b"\x89PNG\r\n\x1a\n", ""),
        (b"GIF89a", ""),
        (b"RIFF\x10\x00\x00\x00WEBP", ""),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_no_image_is_an_error(content, reason, tmp_path):
    path = folder(tmp_path, "image.jpg")
    path.write_bytes(content)
    assert reason in str(caught_error(path))


@pytest.mark.parametrize("kind", ["bmp", "gif"])
def test_an_image_whose_palette_was_lost_is_an_error_and_not_black(kind, tmp_path):
    path = folder(tmp_path, "image.bmp")
    image = photo(HEIGHT, WIDTH).quantize(16)
    image.save(path, kind)
    content, colors = path.read_bytes(), bytes(image.getpalette()[: 3 * 16])
    if kind == "bmp":  # blue, green, red, nothing
        colors = b"".join(colors[at : at + 3][::-1] + b"\0" for at in range(0, len(colors), 3))
    assert colors in content
    path.write_bytes(content.replace(colors, bytes(len(colors))))
    assert "black or not in its palette" in caught_error(path).reason


def test_a_black_image_with_a_palette_is_a_picture(tmp_path):
    Image.new("P", (WIDTH, HEIGHT), 0).save(folder(tmp_path))
    assert not read(ImageReader(index_of(tmp_path), (4, 4))).any()


@pytest.mark.parametrize(
    ("suffix", "dtype", "white", "said"),
    [
        ("png", np.uint16, 255, "pixels of up to 255, where white is 65535"),
        ("tiff", np.uint16, 255, "pixels of up to 255, where white is 65535"),
        ("tiff", np.int32, 255, "pixels of up to 255, where white is 65535"),
        ("tiff", np.float32, 1, "pixels of up to 1, where white is 255"),
    ],
)
def test_an_image_of_many_bits_that_would_be_black_in_eight_is_an_error(suffix, dtype, white, said, tmp_path):
    path = folder(tmp_path, f"image.{suffix}")
    Image.fromarray((np.linspace(0, white, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)).astype(dtype)).save(path)
    assert said in caught_error(path).reason


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_black_image_of_many_bits_is_a_picture(dtype, tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH), dtype)).save(folder(tmp_path, "image.tiff"))
    assert not read(ImageReader(index_of(tmp_path), (4, 4))).any()


def test_a_file_that_went_missing_is_an_error(tmp_path):
    path = folder(tmp_path)
    Image.fromarray(pixels()).save(path)
    reader = ImageReader(index_of(tmp_path), (4, 4))
    path.unlink()
    with pytest.raises(SampleError) as caught:
        read(reader)
    assert str(caught.value) == f"cannot read sample 0, {str(path)!r}: No such file or directory"
    path.mkdir()
    with pytest.raises(SampleError, match="Is a directory"):
        read(reader)


def test_a_link_to_nowhere_is_an_error(tmp_path):
    path = folder(tmp_path)
    path.symlink_to("nowhere")
    assert caught_error(path).reason == "No such file or directory"


def test_only_the_broken_one_of_many_is_an_error(tmp_path):
    for number in range(3):
        Image.fromarray(pixels()).save(folder(tmp_path, f"{number}.png"))
    folder(tmp_path, "1.png").write_bytes(b"")
    reader = ImageReader(index_of(tmp_path), (4, 4))
    read(reader, [0, 2])
    with pytest.raises(SampleError) as caught:
        read(reader, [0, 1, 2])
    assert caught.value.sample == 1


@pytest.mark.parametrize("name", ["image.png", "image.jpg"])
def test_an_image_too_large_for_pillow_is_an_error(name, tmp_path, monkeypatch):
    path = folder(tmp_path, name)
    Image.fromarray(pixels()).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH // 3)
    assert "DecompressionBombError" in caught_error(path).reason


@pytest.mark.parametrize(
    "name", [b"\xff\xfe\xe9.png", "größe 图.png".encode(), b"two\nlines.png", b"tab\t'quote'\".png"]
)
def test_names_that_are_not_plain_text_are_read_and_can_be_printed(name, tmp_path):
    path = folder(tmp_path, os.fsdecode(name))
    Image.fromarray(pixels()).save(path)
    reader = ImageReader(index_of(tmp_path), (HEIGHT, WIDTH))
    np.testing.assert_array_equal(read(reader)[0], pixels())
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    assert len(reader.name(0).splitlines()) == 1
    print(reader.name(0), file=printed)

    path.write_bytes(b"")
    print(caught_error(path), file=printed)
    printed.flush()
    if b"\n" not in name and b"\xff" not in name and b"'" not in name:
        assert reader.name(0) == str(path)
