"""Images with labels, from the paths of an index."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, Unpack

from dist_loader.readers.cached import cached
from dist_loader.readers.crop import Crop
from dist_loader.readers.image import Color, ImageReader
from dist_loader.readers.resize import Resize
from dist_loader.sequence.batch_sequence import BatchSequence
from dist_loader.sequence.columns import Labels, label_column
from dist_loader.sequence.data import Data, Samples, Structure
from dist_loader.sequence.files import clocked_source

if TYPE_CHECKING:
    from dist_loader.index import Index
    from dist_loader.sequence.options import Options


class ImageSequence(BatchSequence):
    """The images of an index, batch by batch, in plan order, for one rank.

    `sequence[step]` is `(images, labels)`, or `(images, labels, weights)` (see `BatchSequence`):

    * images: uint8, shape (batch, height, width, channels);
    * labels: int32, shape (batch,), numbers of `index.classes`; or one-hot, float32, shape (batch, classes);
    * weights: float32, shape (batch,).

    Args:
        index: the samples.
        size: (height, width) of the images in pixels.
        device_batch: samples that one device computes at once, or "auto".
        host_batch: decoded samples held in memory by this process: a number of samples, or a size such as "4GiB".
        color: "rgb" or "grayscale".
        resize: "nearest", "bilinear" or "area".
        crop: "stretch", "center" or "random-resized": which part of an image is resized (docs/images.md).
        labels: "integer" or "one-hot".
        input_name: if given, Keras gets {input_name: images}, for models whose inputs have names.
        output_name: if given, Keras gets {output_name: labels}.
        requests: how many remote files are asked for at the same time (docs/remote.md).
        local_copy: a folder of this host that keeps remote files; None for none.
        local_copy_bytes: how much it may keep.
        cache: folder on a disk of this host where decoded images are kept for the next epochs (docs/cache.md).
        cache_bytes: bytes that the caches in this folder take at most, such as "50GiB"; by default what the disk has
            to spare.
        decode_timeout: seconds that decoding one image may take, then it is a bad sample; never more than half of
            `timeout`.
        **options: strategy, world, seed, shuffle, remainder, global_batch, sample_weight, class_weight, threads,
            timeout, on_bad, bad_budget, bad_file, host_passes, class_shares, epoch_samples, augment, augment_batch:
            see `BatchSequence`.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do.
    """

    unit = "images"

    def __init__(
        self,
        index: Index,
        size: tuple[int, int],
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        *,
        color: Color = "rgb",
        resize: Resize = "bilinear",
        crop: Crop = "stretch",
        labels: Labels = "integer",
        input_name: str | None = None,
        output_name: str | None = None,
        requests: int = 32,
        local_copy: str | os.PathLike[str] | None = None,
        local_copy_bytes: str = "100GiB",
        cache: str | os.PathLike[str] | None = None,
        cache_bytes: int | str | None = None,
        decode_timeout: float = 60.0,
        **options: Unpack[Options],
    ) -> None:
        self.index = index
        clock, reading = clocked_source(index, requests, local_copy, local_copy_bytes, decode_timeout, options)
        images = ImageReader(index, size, color, resize, crop, options.get("seed", 0), clock.source)
        column = label_column(index.labels, len(index.classes), labels, index.labels_of)
        data = Data(
            Samples(len(index), lambda: index.fingerprint, index.labels, index.classes),
            cached(images, cache, cache_bytes),
            Structure(
                "image" if input_name is None else {input_name: "image"},
                column if output_name is None else {output_name: column},
            ),
            recipe=f"{'x'.join(map(str, images.size))} {color}, {resize}, {crop}"
            + (", one-hot" if labels == "one-hot" else ""),
            clock=clock,
            threads=reading,
        )
        super().__init__(data, device_batch, host_batch, **options)
