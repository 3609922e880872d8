"""Small images of every supported kind, and ways to spoil them: pure functions of a seed and a number."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image

HEIGHT, WIDTH = 40, 56
_HEADER = 256  # bytes that half of the mutations are aimed at
_EXTREMES = (b"\0", b"\xff", b"\x7f\xff", b"\x80\0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xd9")


def originals() -> dict[str, bytes]:
    """A file of each kind, none of which is dark."""
    rng = np.random.default_rng(0)
    rough = rng.integers(60, 256, (6, 8, 3), np.uint8)
    soft = np.asarray(Image.fromarray(rough).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
    color = Image.fromarray((soft + rng.integers(-6, 7, soft.shape)).clip(30, 255).astype(np.uint8))
    gray, alpha = color.convert("L"), color.convert("RGBA")
    alpha.putalpha(200)
    deep = Image.fromarray(np.asarray(gray).astype(np.uint16) << 8)
    frames = [color.rotate(90 * turns).resize(color.size) for turns in range(3)]
    exif = Image.Exif()
    exif[0x0112] = 6
    animated = {"save_all": True, "append_images": frames[1:], "duration": 40}
    return {
        "JPEG": _saved(color, "jpeg", quality=88),
        "JPEG 4:4:4, restarts": _saved(color, "jpeg", quality=88, subsampling=0, restart_marker_blocks=4),
        "JPEG progressive": _saved(color, "jpeg", quality=88, progressive=True),
        "JPEG gray": _saved(gray, "jpeg", quality=88),
        "JPEG CMYK": _saved(color.convert("CMYK"), "jpeg", quality=88),
        "JPEG with EXIF": _saved(color, "jpeg", quality=88, exif=exif),
        "PNG": _saved(color, "png"),
        "PNG interlaced": _interlaced(np.asarray(color)),
        "PNG palette": _saved(color.quantize(16), "png"),
        "PNG alpha": _saved(alpha, "png"),
        "PNG 16 bit": _saved(deep, "png"),
        "PNG 1 bit": _saved(gray.convert("1"), "png"),
        "WebP": _saved(color, "webp", quality=85),
        "WebP lossless, alpha": _saved(alpha, "webp", lossless=True),
        "WebP animated": _saved(frames[0], "webp", **animated),
        "BMP": _saved(color, "bmp"),
        "BMP palette": _saved(color.quantize(16), "bmp"),
        "GIF": _saved(color.quantize(32), "gif"),
        "GIF animated": _saved(frames[0], "gif", **animated),
        "TIFF": _saved(color, "tiff"),
        "TIFF LZW": _saved(color, "tiff", compression="tiff_lzw"),
        "TIFF deflate": _saved(color, "tiff", compression="tiff_adobe_deflate"),
        "TIFF JPEG": _saved(color, "tiff", compression="jpeg"),
        "TIFF PackBits, 16 bit": _saved(deep, "tiff", compression="packbits"),
        "TIFF Group 4": _saved(gray.convert("1"), "tiff", compression="group4"),
    }


def mutated(number: int, seed: int, kinds: dict[str, bytes]) -> tuple[str, bytes]:
    """The name of a kind, and a spoilt file of it: one mutation, or two."""
    rng = np.random.default_rng([seed, number])
    names = list(kinds)
    kind = names[number % len(names)]
    data = kinds[kind]
    for _ in range(1 if rng.random() < 0.75 else 2):
        way = _WAYS[int(rng.integers(len(_WAYS)))]
        other = kinds[names[int(rng.integers(len(names)))]]
        data = way(bytearray(data), rng, other) if len(data) > 8 else data
    return kind, bytes(data)


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _interlaced(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A PNG in the seven passes of Adam7, which Pillow reads and does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.tobytes() for top, left, down, across in passes for row in pixels[top::down, left::across]
    )

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


Way = Callable[[bytearray, np.random.Generator, bytes], bytes]


def _place(data: bytearray, rng: np.random.Generator) -> int:
    most = min(len(data), _HEADER) if rng.random() < 0.5 else len(data)
    return int(rng.integers(most))


def _bits(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    for _ in range(int(rng.integers(1, 4))):
        data[_place(data, rng)] ^= 1 << int(rng.integers(8))
    return bytes(data)


def _bytes(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    for _ in range(int(rng.integers(1, 5))):
        data[_place(data, rng)] = int(rng.integers(256))
    return bytes(data)


def _extreme(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    value, at = _EXTREMES[int(rng.integers(len(_EXTREMES)))], _place(data, rng)
    data[at : at + len(value)] = value
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    return bytes(data[: _place(data, rng)])


def _hole(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    at = _place(data, rng)
    del data[at : at + int(rng.integers(1, 200))]
    return bytes(data)


def _zeros(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    at = _place(data, rng)
    length = min(len(data) - at, int(rng.integers(1, 600)))
    data[at : at + length] = bytes(length)
    return bytes(data)


def _twice(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    at = _place(data, rng)
    data[at:at] = data[at : at + int(rng.integers(1, 200))]
    return bytes(data)


def _noise(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    at = _place(data, rng)
    data[at:at] = rng.bytes(int(rng.integers(1, 100)))
    return bytes(data)


def _graft(data: bytearray, rng: np.random.Generator, other: bytes) -> bytes:
    return bytes(data[: _place(data, rng)]) + other[int(rng.integers(len(other))) :]


_WAYS: tuple[Way, ...] = (_bits, _bytes, _extreme, _cut, _hole, _zeros, _twice, _noise, _graft)
