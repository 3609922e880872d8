"""Images against Pillow, over formats, modes and sizes, and what a reader is asked for."""

import subprocess
import sys
import textwrap
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dist_loader.errors import ConfigError
from dist_loader.readers.image import ImageReader
from tests.readers.support import FILTERS, HEIGHT, WIDTH, folder, index_of, lying, pixels, read


def image_of(mode):
    """An image of a mode, and the (height, width, 3) pixels that it shows, transparency left out."""
    noise = pixels()
    gray = np.repeat(noise[..., :1], 3, axis=2)
    alpha = Image.fromarray(pixels(seed=1)[..., 0])
    if mode == "1":
        bits = noise[..., 0] > 127
        return Image.fromarray(bits), np.repeat(255 * bits[..., None].astype(np.uint8), 3, axis=2)
    if mode == "L":
        return Image.fromarray(noise[..., 0]), gray
    if mode == "LA":
        image = Image.fromarray(noise[..., 0]).convert("LA")
        image.putalpha(alpha)
        return image, gray
    if mode in ("I;16", "I;16B"):
        deep = noise[..., 0].astype(np.uint16) * 256 + noise[..., 1]
        order = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(mode, (WIDTH, HEIGHT), deep.astype(order).tobytes()), gray
    if mode == "RGB":
        return Image.fromarray(noise), noise
    if mode == "RGBA":
        image = Image.fromarray(noise).convert("RGBA")
        image.putalpha(alpha)
        return image, noise
    if mode == "P":
        few = pixels(colors=16)
        return Image.fromarray(few).quantize(16), few
    if mode == "CMYK":
        image = Image.fromarray(noise).convert("CMYK")
        return image, np.asarray(image.convert("RGB"))
    raise AssertionError(mode)


LOSSLESS = [
    *(("png", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("png", "P", {"transparency": 3}),
    ("png", "P", {"transparency": bytes(range(0, 256, 16))}),
    ("png", "L", {"transparency": 5}),
    ("png", "RGB", {"transparency": (1, 2, 3)}),
    *(("bmp", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(("gif", mode, {}) for mode in ("1", "L", "P")),
    ("gif", "P", {"transparency": 3}),
    *(("webp", mode, {"lossless": True, "exact": True}) for mode in ("RGB", "RGBA")),
    *(("tiff", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B", "CMYK")),
    ("tiff", "RGB", {"compression": "tiff_lzw"}),
    ("tiff", "RGB", {"compression": "tiff_adobe_deflate"}),
]


@pytest.mark.parametrize("color", ["rgb", "grayscale"])
@pytest.mark.parametrize(("suffix", "mode", "options"), LOSSLESS, ids=lambda value: str(value)[:24])
def test_every_format_and_mode_shows_its_pixels(suffix, mode, options, color, tmp_path):
    image, shown = image_of(mode)
    image.save(folder(tmp_path, f"image.{suffix}"), **options)
    reference = Image.fromarray(shown).convert("RGB" if color == "rgb" else "L")
    channels = 3 if color == "rgb" else 1
    for size in [(HEIGHT, WIDTH), (7, 11), (50, 31), (1, 1)]:
        for resize, how in FILTERS.items():
            reader = ImageReader(index_of(tmp_path), size, color, resize)
            assert reader.shape == (*size, channels)
            assert reader.dtype == np.uint8
            wanted = np.asarray(reference.resize(size[::-1], how)).reshape(reader.shape)
            np.testing.assert_array_equal(read(reader)[0], wanted, err_msg=f"{size} {resize}")


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_exif_orientation_says(orientation, suffix, tmp_path):
    upright = pixels()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(lying(upright, orientation)))
    stored.save(folder(tmp_path, f"image.{suffix}"), exif=exif, lossless=True)
    np.testing.assert_array_equal(read(ImageReader(index_of(tmp_path), (HEIGHT, WIDTH)))[0], upright)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels()).save(folder(tmp_path), exif=exif)
    np.testing.assert_array_equal(read(ImageReader(index_of(tmp_path), (HEIGHT, WIDTH)))[0], pixels())


@pytest.mark.parametrize("suffix", ["gif", "webp", "tiff", "png"])
def test_of_an_animation_the_first_frame_counts(suffix, tmp_path):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH, 3), value, np.uint8)) for value in (50, 200, 100)]
    frames[0].save(folder(tmp_path, f"image.{suffix}"), save_all=True, append_images=frames[1:], lossless=True)
    assert (read(ImageReader(index_of(tmp_path), (4, 4))) == 50).all()


def test_what_a_file_holds_counts_and_not_what_its_name_says(tmp_path):
    for position, kind in enumerate(["PNG", "TIFF", "WEBP", "BMP", "GIF"]):
        few = pixels(colors=8, seed=position)
        Image.fromarray(few).save(folder(tmp_path, f"{position}.jpg"), format=kind, lossless=True)
        reader = ImageReader(index_of(tmp_path), (HEIGHT, WIDTH))
        np.testing.assert_array_equal(read(reader, [position])[0], few)


# ---------------------------------------------------------------------------------------------- many, and from threads


def test_samples_come_in_the_order_asked_for_and_fill_every_element(tmp_path):
    images = [pixels(seed=number) for number in range(6)]
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder(tmp_path, f"{number}.png"))
    reader = ImageReader(index_of(tmp_path), (HEIGHT, WIDTH))
    numbers = [3, 0, 5, 3]
    for garbage in (0, 255):
        out = np.full((len(numbers) + 2, *reader.shape), garbage, np.uint8)
        reader.read(np.array(numbers), 0, out[1:-1])
        np.testing.assert_array_equal(out[1:-1], [images[number] for number in numbers])
        assert (out[0] == garbage).all()
        assert (out[-1] == garbage).all()


def test_threads_read_what_one_thread_reads_and_leave_the_warnings_of_others_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", HEIGHT * WIDTH - 1)  # Pillow now warns of each of these images
    for number in range(40):
        suffix = ("png", "jpg", "webp", "tiff")[number % 4]
        Image.fromarray(pixels(seed=number)).save(folder(tmp_path, f"{number:02}.{suffix}"))
    reader = ImageReader(index_of(tmp_path), (11, 13))
    alone = read(reader, range(40))
    before = list(warnings.filters)
    wrong = []

    def work():
        for _ in range(3):
            if not np.array_equal(read(reader, range(40)), alone):
                wrong.append(1)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert wrong == []
    assert list(warnings.filters) == before


def test_the_first_images_of_a_process_may_be_read_by_many_threads(tmp_path):
    """Pillow loads its plugins when they are first needed, which many threads at once disturb."""
    for number in range(8):
        kind = ("TIFF", "WEBP")[number % 2]
        Image.fromarray(pixels(seed=number)).save(folder(tmp_path, f"{number}.jpg"), format=kind)
    program = textwrap.dedent("""
        import sys, threading
        import numpy as np
        from dist_loader.index import Index
        from dist_loader.readers.image import ImageReader

        sys.setswitchinterval(1e-5)
        reader = ImageReader(Index.from_directory(sys.argv[1]), (4, 4))
        barrier = threading.Barrier(8)
        failed = []

        def work(number):
            barrier.wait()
            try:
                reader.read(np.array([number]), 0, np.empty((1, 4, 4, 3), np.uint8))
            except Exception as error:
                failed.append(error)

        workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        sys.exit(str(failed) if failed else 0)
    """)
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "size",
    [(0, 4), (4, 0), (-1, 4), (4,), (4, 4, 3), 4, None, "44", (4.0, 4), (True, 4), ("4", "4"), [], {4, 5}, (4, None)],
)
def test_an_impossible_size_is_refused_and_shown(size, numbered):
    with pytest.raises(ConfigError, match="height, width") as caught:
        ImageReader(numbered(4), size)
    assert repr(size) in str(caught.value)


@pytest.mark.parametrize("size", [(3, 5), [3, 5], (np.int64(3), np.int32(5))])
def test_a_size_is_height_and_width(size, numbered):
    reader = ImageReader(numbered(4), size)
    assert reader.shape == (3, 5, 3)
    assert [type(side) for side in reader.shape] == [int, int, int]


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"color": "RGB"}, "rgb, grayscale, not 'RGB'"),
        ({"color": 3}, "not 3"),
        ({"color": None}, "not None"),
        ({"resize": "bicubic"}, "nearest, bilinear, area, not 'bicubic'"),
        ({"resize": ""}, "not ''"),
    ],
)
def test_an_unknown_color_or_resize_is_refused(kwargs, said, numbered):
    with pytest.raises(ConfigError, match=said):
        ImageReader(numbered(4), (4, 4), **kwargs)


def test_the_path_is_the_name(numbered):
    index = numbered(4)
    reader = ImageReader(index, (4, 4))
    assert [reader.name(number) for number in range(4)] == [index.path(number) for number in range(4)]
    assert all(Path(reader.name(number)).is_file() for number in range(4))
