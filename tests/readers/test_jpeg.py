"""JPEG files against Pillow: kinds, sizes, colors, reductions, orientations.

The tolerances, of 255: nearest is the same to the bit, and so is area where the file is decoded whole. What else there
is differs by `WHOLE` where it is decoded whole, by `DAMPED` where its finest detail was taken out before, and by
`REDUCED` at a reduced scale, on average and at most.
"""

import io
from functools import cache

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageDraw, ImageOps

from dist_loader.readers.image import ImageReader
from tests.readers.support import FILTERS, folder, index_of, lying, photo, pixels, read

WHOLE = 1.5, 12
DAMPED = 2, 24
REDUCED = 4, 36
FINEST = 21, 120  # of patterns as fine as a pixel, which photographs are not
COARSE = 9, 90  # colors stored at a quarter of the width come out at an eighth or less

STORED = [(400, 455), (801, 1203), (301, 97), (33, 190), (9, 7), (1, 50), (50, 1), (1, 1)]
SIZES = [(224, 224), (64, 60), (40, 50), (1, 1), (1, 40), (411, 500)]


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, "jpeg", quality=90, **options)
    return file.getvalue()


def subsampled(image, kind):
    return simplejpeg.encode_jpeg(np.asarray(image).copy(), 90, colorsubsampling=kind)


def four_colors(image):
    """As print shops do it: YCCK, with Adobe's marker."""
    return simplejpeg.encode_jpeg(np.asarray(image.convert("CMYK")).copy(), 90, "CMYK")


KINDS = {
    **{kind: lambda image, kind=kind: subsampled(image, kind) for kind in ("444", "422", "420", "440", "411")},
    "progressive": lambda image: encoded(image, progressive=True),
    "gray": lambda image: encoded(image.convert("L")),
    "restarts": lambda image: encoded(image, restart_marker_rows=1),
    "rgb": lambda image: encoded(image, keep_rgb=True),
    "cmyk": lambda image: encoded(image.convert("CMYK")),
    "ycck": four_colors,
}
FOUR_COLORS = ("cmyk", "ycck")


@cache
def example(kind, stored):
    """A file's content, and what it holds: the colors, and the gray that the file itself has."""
    data = KINDS[kind](photo(*stored))
    colors = Image.open(io.BytesIO(data)).convert("RGB")
    gray = Image.open(io.BytesIO(data))
    if kind not in FOUR_COLORS:
        gray.draft("L", gray.size)
    return data, {"rgb": colors, "grayscale": gray.convert("L")}


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """By kind, an index of all the stored sizes."""
    root = tmp_path_factory.mktemp("jpeg")
    for kind in KINDS:
        (root / kind / "class").mkdir(parents=True)
        for number, stored in enumerate(STORED):
            (root / kind / "class" / f"{number}.jpg").write_bytes(example(kind, stored)[0])
    return {kind: index_of(root / kind) for kind in KINDS}


def assert_close(got, wanted, tolerance, what=""):
    difference = np.abs(got.astype(int) - np.asarray(wanted).reshape(got.shape))
    assert difference.mean() <= tolerance[0], what
    assert difference.max() <= tolerance[1], what


def allowed(kind, stored, size, resize):
    """(mean, largest) difference."""
    shrunk = min(stored[0] / size[0], stored[1] / size[1])
    if kind in FOUR_COLORS or resize == "nearest" or (resize == "area" and shrunk < 3.5):
        return 0, 0
    if kind == "411":
        return COARSE
    if shrunk > 1.9:
        return REDUCED
    most = max(stored[0] / size[0], stored[1] / size[1])
    return DAMPED if resize == "bilinear" and 1 < most < 2.3 else WHOLE


@pytest.mark.parametrize("color", ["rgb", "grayscale"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_looks_as_pillow_shows_it(kind, color, examples):
    numbers = range(len(STORED))
    for size in SIZES if kind in ("420", "gray") else SIZES[:3]:
        for resize, how in FILTERS.items():
            images = read(ImageReader(examples[kind], size, color, resize), numbers)
            for number, stored in enumerate(STORED):
                wanted = example(kind, stored)[1][color].resize(size[::-1], how)
                what = f"{stored} to {size}, {resize}"
                assert_close(images[number], wanted, allowed(kind, stored, size, resize), what)


def fine_pattern(kind, height, width):
    if kind == "noise":
        return Image.fromarray(pixels(height=height, width=width))
    if kind == "stripes":
        return Image.fromarray(np.tile((np.arange(width) % 2 * 255).astype(np.uint8), (height, 1))).convert("RGB")
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).multiline_text((2, 2), "\n".join(["The quick brown fox jumps over the dog " * 4] * 40), 0)
    return image


@pytest.mark.parametrize("kind", ["noise", "stripes", "text"])
def test_the_finest_patterns_differ_by_more_and_no_more_than_stated(kind, tmp_path):
    for name, stored in (("0.jpg", (400, 455)), ("1.jpg", (256, 256)), ("2.jpg", (301, 457))):
        fine_pattern(kind, *stored).save(folder(tmp_path, name), quality=90)
    index = index_of(tmp_path)
    for size in ((320, 320), (224, 224), (128, 128), (96, 96)):
        for resize, how in FILTERS.items():
            for number, got in enumerate(read(ImageReader(index, size, resize=resize), range(3))):
                with Image.open(index.path(number)) as opened:
                    shrunk = min(opened.height / size[0], opened.width / size[1])
                    same = resize == "nearest" or (resize == "area" and shrunk < 3.5)
                    wanted = opened.resize(size[::-1], how)
                assert_close(got, wanted, (0, 0) if same else FINEST, f"{number} to {size}, {resize}")


@pytest.mark.parametrize("crop", ["center", "random-resized"])
@pytest.mark.parametrize("color", ["rgb", "grayscale"])
def test_a_part_of_a_jpeg_looks_as_pillow_shows_it(color, crop, examples):
    numbers = range(len(STORED))
    for size in [(224, 224), (48, 64), (50, 40)]:
        for resize, how in FILTERS.items():
            reader = ImageReader(examples["420"], size, color, resize, crop, seed=1)
            images = read(reader, numbers, epoch=3)
            for number, stored in enumerate(STORED):
                top, left, height, width = box = reader._box(3, number, *stored)
                box = (left, top, left + width, top + height)
                wanted = example("420", stored)[1][color].crop(box).resize(size[::-1], how)
                tolerance = allowed("420", (height, width), size, resize)
                if tolerance is REDUCED:  # up to half a pixel of the reduced image away
                    tolerance = 2 * REDUCED[0], 2 * REDUCED[1]
                assert_close(images[number], wanted, tolerance, f"{box} of {stored} to {size}, {resize}")


def test_a_jpeg_of_many_pixels_and_small_ones_after_it(tmp_path):
    for name, shape in (("0.jpg", (1400, 1300)), ("1.jpg", (90, 80)), ("2.jpg", (120, 50))):
        photo(*shape).save(folder(tmp_path, name), quality=90)
    images = read(ImageReader(index_of(tmp_path), (50, 70), resize="nearest"), [1, 0, 2, 1])
    for number, got in zip([1, 0, 2, 1], images, strict=True):
        with Image.open(folder(tmp_path, f"{number}.jpg")) as opened:
            np.testing.assert_array_equal(got, opened.resize((70, 50), FILTERS["nearest"]))


@pytest.mark.parametrize("side", [64, 96, 130, 250])
def test_a_part_of_a_reduced_jpeg_lies_within_half_a_sample_pixel_of_its_place(side, tmp_path):
    """In a picture that is 1 brighter every 8 pixels, the brightness tells the place."""
    ramp = (np.arange(2000) / 8).round().astype(np.uint8)
    for name, image in (("0.jpg", np.tile(ramp, (1500, 1))), ("1.jpg", np.tile(ramp[:1500, None], (1, 2000)))):
        Image.fromarray(image).save(folder(tmp_path, name), quality=100)
    reader = ImageReader(index_of(tmp_path), (side, side), "grayscale", crop="random-resized")
    for epoch in range(10):
        for number, got in enumerate(read(reader, (0, 1), epoch)):
            at, length = reader._box(epoch, number, 1500, 2000)[1 - number :: 2]
            middle = (at + length / 2) / 8
            assert abs(got.mean() - middle) <= length / side / 2 / 8 + 0.6


def test_the_middle_of_a_part_at_an_eighth_lies_within_half_a_pixel_of_it(tmp_path):
    """In a picture that is 1 brighter at every pixel, half a pixel of the reduced image is 4."""
    ramp = np.arange(250).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (250, 1))).save(folder(tmp_path), "jpeg", quality=100)
    reader = ImageReader(index_of(tmp_path), (4, 4), "grayscale", crop="random-resized")
    for epoch in range(100):
        _, left, height, width = reader._box(epoch, 0, 250, 250)
        assert min(height, width) >= 4 * 8
        assert abs(read(reader, epoch=epoch).mean() - (left + (width - 1) / 2)) <= 4 + 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_lies_within_half_a_pixel_of_the_reduced_image_of_its_place(orientation, tmp_path):
    """Its sides are 8 k + 1: reduced, what is stored ends in a pixel that is hardly there, and may begin so upright."""
    ramp = (np.arange(1001) / 4).round().astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, upright in (("0.jpg", np.tile(ramp, (1001, 1))), ("1.jpg", np.tile(ramp[:, None], (1, 1001)))):
        stored = Image.fromarray(np.ascontiguousarray(lying(upright, orientation)))
        stored.save(folder(tmp_path, name), quality=100, exif=exif)
    for got in read(ImageReader(index_of(tmp_path), (120, 120), "grayscale"), (0, 1)):
        assert abs(got.mean() - ramp.mean()) <= 4 / 4


def test_no_pixel_is_skipped_when_an_image_shrinks(tmp_path):
    """Lines of one pixel become an even gray, and not thicker lines, wherever they lie."""
    for name, shape in (("0.jpg", (1, 400, 1)), ("1.jpg", (400, 1, 1))):
        stripes = np.broadcast_to((np.arange(400) % 2 * 255).astype(np.uint8).reshape(shape), (400, 400, 3))
        Image.fromarray(stripes).save(folder(tmp_path, name), quality=100, subsampling=0)
    for side, most in ((180, 60), (140, 40), (115, 40), (95, 40), (61, 40), (33, 40)):  # 180: damped, block by block
        across = read(ImageReader(index_of(tmp_path), (400, side)), [0])
        down = read(ImageReader(index_of(tmp_path), (side, 400)), [1])
        for image in (across, down):
            assert np.abs(image.astype(int) - 127).max() <= most, side


@pytest.mark.parametrize("color", ["rgb", "grayscale"])
@pytest.mark.parametrize("crop", ["stretch", "center"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_jpeg_is_turned_as_its_exif_orientation_says(orientation, crop, color, tmp_path):
    upright = np.asarray(photo(120, 200))
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(lying(upright, orientation if 1 <= orientation <= 8 else 1)))
    stored.save(folder(tmp_path, "image.jpg"), quality=95, exif=exif)
    with Image.open(folder(tmp_path, "image.jpg")) as opened:
        opened.draft("RGB" if color == "rgb" else "L", opened.size)
        turned = ImageOps.exif_transpose(opened)
    for size in [(120, 200), (50, 50), (15, 25)]:
        reader = ImageReader(index_of(tmp_path), size, color, crop=crop)
        top, left, height, width = reader._box(0, 0, 120, 200)
        box = (left, top, left + width, top + height)
        wanted = turned.crop(box).resize(size[::-1], Image.Resampling.BILINEAR)
        assert_close(read(reader)[0], wanted, REDUCED if size != (120, 200) else (0, 0))


def test_an_orientation_that_only_the_xmp_tells_is_seen(tmp_path):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    photo(40, 60).save(folder(tmp_path, "0.jpg"), quality=95, xmp=xmp)
    photo(40, 60).save(folder(tmp_path, "1.jpg"), quality=95)
    turned, plain = read(ImageReader(index_of(tmp_path), (40, 60)), [0, 1])
    assert_close(turned[::-1, ::-1], plain, (1, 8))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_large_jpeg_on_its_side_keeps_its_detail_at_a_reduced_scale(orientation, tmp_path):
    """400 wide, 50 high, from 3200 x 800 lying on its side: a scale chosen for the lying image loses the width."""
    stripes = np.zeros((3200, 800, 3), np.uint8)
    stripes[:, (np.arange(800) // 4) % 2 == 1] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(lying(stripes, orientation)))
    stored.save(folder(tmp_path, "image.jpg"), quality=95, exif=exif)
    wanted = np.asarray(Image.fromarray(stripes).resize((400, 50), Image.Resampling.BILINEAR)).astype(int)
    got = read(ImageReader(index_of(tmp_path), (50, 400)))[0]
    assert np.abs(got - wanted).mean() < 40  # an even gray would be 96 away


@pytest.mark.parametrize("name", ["image.png", "image.webp", "IMAGE.JPEG"])
def test_a_jpeg_is_known_by_its_content(name, tmp_path):
    data, shown = example("420", (400, 455))
    folder(tmp_path, name).write_bytes(data)
    np.testing.assert_array_equal(read(ImageReader(index_of(tmp_path), (400, 455)))[0], shown["rgb"])


def test_the_reading_threads_have_the_cores_to_themselves():
    assert cv2.getNumThreads() == 1
