"""Which part of an image becomes a sample."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dist_loader.errors import ConfigError
from dist_loader.readers.crop import crop_box
from dist_loader.readers.image import ImageReader
from tests.readers.support import FILTERS, folder, index_of, pixels, read

MODES = ["stretch", "center", "random-resized"]
sides = st.integers(1, 5000)
targets = st.tuples(st.integers(1, 600), st.integers(1, 600))
integers = st.integers(-(2**70), 2**70)
counts = st.integers(0, 2**62)


@given(st.sampled_from(MODES), sides, sides, targets, integers, counts, counts)
def test_a_box_is_of_whole_pixels_inside_the_image(mode, height, width, target, seed, epoch, sample):
    box = top, left, rows, columns = crop_box(mode, height, width, target, seed, epoch, sample)
    assert all(type(value) is int for value in box)
    assert 0 <= top < top + rows <= height
    assert 0 <= left < left + columns <= width
    assert box == crop_box(mode, height, width, target, seed, epoch, sample)


@given(sides, sides, targets, integers, counts, counts)
def test_stretched_and_centered_boxes_are_not_random(height, width, target, seed, epoch, sample):
    assert crop_box("stretch", height, width, target, seed, epoch, sample) == (0, 0, height, width)
    top, left, rows, columns = crop_box("center", height, width, target, seed, epoch, sample)
    assert (top, left, rows, columns) == crop_box("center", height, width, target, 0, 0, 0)
    assert rows == height or columns == width
    # In the middle, and of the target's aspect ratio, to within a pixel.
    assert 0 <= height - rows - 2 * top <= 1
    assert 0 <= width - columns - 2 * left <= 1
    if rows < height and rows > 1:
        assert abs(rows * target[1] / target[0] - width) <= target[1] / target[0]
    if columns < width and columns > 1:
        assert abs(columns * target[0] / target[1] - height) <= target[0] / target[1]


@pytest.mark.parametrize(
    ("image", "target", "box"),
    [
        ((400, 600), (100, 100), (0, 100, 400, 400)),
        ((600, 400), (100, 100), (100, 0, 400, 400)),
        ((400, 600), (100, 150), (0, 0, 400, 600)),
        ((400, 600), (200, 100), (0, 200, 400, 200)),
        ((3, 1000), (1, 1), (0, 498, 3, 3)),
        ((1, 1), (7, 500), (0, 0, 1, 1)),
    ],
)
def test_the_middle(image, target, box):
    assert crop_box("center", *image, target, 0, 0, 0) == box


def boxes(height, width, samples=4000, seed=0, epoch=0):
    return np.array([crop_box("random-resized", height, width, (9, 9), seed, epoch, n) for n in range(samples)])


def apart(one, other):
    """The largest difference between the distribution functions of two sets of numbers."""
    at = np.sort(np.concatenate([one, other]))
    return np.abs(np.searchsorted(np.sort(one), at) / len(one) - np.searchsorted(np.sort(other), at) / len(other)).max()


@pytest.mark.parametrize("seed", [0, 1, -5])
@pytest.mark.parametrize(("height", "width"), [(1000, 1000), (800, 1600)])
def test_random_boxes_are_spread_as_inception_has_them(height, width, seed):
    rng = np.random.default_rng(0)
    area = height * width * rng.uniform(0.08, 1, 10**5)
    ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 10**5))
    fits = (np.sqrt(area / ratio) <= height) & (np.sqrt(area * ratio) <= width)
    top, left, rows, columns = boxes(height, width, seed=seed).T
    near = 1.95 / len(top) ** 0.5  # Kolmogorov and Smirnov: farther apart once in a thousand
    assert apart(rows * columns, area[fits]) < near + 0.001
    assert apart(columns / rows, ratio[fits]) < near + 0.001
    for at, free in ((top, height - rows), (left, width - columns)):
        place = at[free > 100] / free[free > 100]
        assert apart(place, rng.uniform(0, 1, 10**5)) < near + 0.01
        assert abs(np.corrcoef(place[1:], place[:-1])[0, 1]) < 0.06  # neighbours know nothing of each other


def test_random_boxes_depend_on_seed_epoch_and_sample():
    base = boxes(500, 700, 300)
    for other in (boxes(500, 700, 300, epoch=1), boxes(500, 700, 300, seed=1), np.roll(base, 1, axis=0)):
        assert (base == other).all(axis=1).mean() < 0.02
    assert len({tuple(box) for box in base.tolist()}) > 290
    alike = {crop_box("random-resized", 500, 700, (9, 9), *three) for three in ((1, 17, 1), (17, 1, 1), (1, 1, 17))}
    assert len(alike) == 3  # though their digits in a row are the same


@pytest.mark.parametrize(
    ("image", "box"), [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_where_no_part_fits_it_is_the_middle(image, box):
    drawn = boxes(*image, samples=50)
    assert tuple(box) in {tuple(one) for one in drawn.tolist()}
    assert (drawn[:, 2] * drawn[:, 3] >= 1).all()


# ------------------------------------------------------------------------------------------------- through the reader


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(8):
        image = pixels(height=40 + 7 * number, width=90 - 9 * number, seed=number)
        Image.fromarray(image).save(folder(root, f"{number}.png"))
    return index_of(root)


@pytest.mark.parametrize("resize", FILTERS)
@pytest.mark.parametrize("mode", MODES)
def test_a_reader_resizes_the_part_that_the_box_tells(mode, resize, photos):
    reader = ImageReader(photos, (16, 24), resize=resize, crop=mode, seed=7)
    images = read(reader, range(8), epoch=5)
    for number, got in enumerate(images):
        image = Image.open(photos.path(number))
        top, left, rows, columns = crop_box(mode, image.height, image.width, (16, 24), 7, 5, number)
        part = image.crop((left, top, left + columns, top + rows)).resize((24, 16), FILTERS[resize])
        np.testing.assert_array_equal(got, part)


def test_a_random_part_is_the_same_in_any_order_company_and_thread(photos):
    reader = ImageReader(photos, (9, 9), crop="random-resized", seed=3)
    alone = {number: read(reader, [number], epoch=2)[0] for number in range(8)}
    together = {}
    threads = [
        threading.Thread(target=lambda part=part: together.update(zip(part, read(reader, part, epoch=2), strict=True)))
        for part in ([7, 1, 4], [0, 6], [5, 2, 3])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for number in range(8):
        np.testing.assert_array_equal(alone[number], together[number])
    assert any((read(reader, [number], epoch=3)[0] != alone[number]).any() for number in range(8))


def test_an_unknown_crop_is_refused(photos):
    with pytest.raises(ConfigError, match="crop must be one of stretch, center, random-resized, not 'centre'"):
        ImageReader(photos, (4, 4), crop="centre")
