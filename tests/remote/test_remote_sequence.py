"""Training batches from a web server: the same as from disk, many requests at once, errors by name and in time."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("aiohttp", reason="the libraries for remote files are not installed: pip install -e '.[remote]'")

from dist_loader.errors import ConfigError, SampleError
from dist_loader.index import Index
from dist_loader.sequence.image import ImageSequence
from dist_loader.world import World
from tests.remote.conftest import Site

pytestmark = pytest.mark.distributed


def put_images(site: Site, count: int) -> Index:
    """Images that show their own number, and an index of their signed addresses."""
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file, "png")
        site.files[f"/{number:03}.png"] = file.getvalue()
    addresses = [f"{site.address}{path}?signature=SECRET" for path in site.files]
    return Index.from_paths(addresses, [number % 2 for number in range(count)])


def sequence_of(index: Index, **more: object) -> ImageSequence:
    return ImageSequence(index, (8, 8), 16, world=World(0, 1, 0, 1), seed=3, threads=2, **more)  # type: ignore[arg-type]


def test_batches_are_those_of_the_plan_with_many_requests_in_flight(
    site: Site, threads: Callable[[], list[str]]
) -> None:
    sequence = sequence_of(put_images(site, 64), requests=24)
    site.latency = 0.05
    for step in range(4):
        images, labels = sequence[step]
        numbers, _ = sequence.plan.batch(0, step, 0)
        assert images[:, 0, 0, 0].tolist() == numbers.tolist()
        assert labels.tolist() == (numbers % 2).tolist()
    assert 16 <= site.most_at_once <= 24
    sequence.close()


def test_waiting_for_a_turn_to_decode_is_not_taken_for_decoding(site: Site) -> None:
    """24 threads ask for files, and 2 of them decode at a time: never more than 2 seconds of decoding in a second."""
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "png")
    index = put_images(site, 48)
    site.files.update(dict.fromkeys(site.files, file.getvalue()))
    started = time.perf_counter()
    sequence = sequence_of(index, requests=24)
    sequence.read_ahead_to(1)
    for step in range(3):
        sequence[step]
    times = sequence.reading_times()
    assert times.samples == 48
    assert 0 < times.decoding <= 2 * (time.perf_counter() - started)
    sequence.close()


def test_a_file_that_did_not_come_was_waited_for_and_not_decoded(site: Site) -> None:
    index = put_images(site, 16)
    site.faults["/007.png"] = ["silent"]
    sequence = sequence_of(index, timeout=2.0, on_bad="replace")
    sequence.read_ahead_to(1)
    sequence[0]
    times = sequence.reading_times()
    assert times.samples == 16
    assert times.fetching > 0.9 > times.decoding
    sequence.close()


@pytest.mark.parametrize("fault", [404, "silent"])
def test_a_file_that_does_not_come_is_an_error_with_its_address_and_in_time(site: Site, fault: int | str) -> None:
    index = put_images(site, 16)
    site.faults["/007.png"] = [fault]
    sequence = sequence_of(index, timeout=2.0)
    start = time.monotonic()
    with pytest.raises(
        SampleError, match=r"rank 0: cannot read sample 7, .*/007\.png\?\.\.\.'.* tr(y|ies) in"
    ) as caught:
        sequence[0]
    assert time.monotonic() - start < 2.5
    assert "SECRET" not in str(caught.value)
    sequence.close()


def test_what_is_no_image_is_named_without_its_signature(site: Site) -> None:
    index = put_images(site, 16)
    site.files["/003.png"] = b"<html>sign in</html>"
    sequence = sequence_of(index)
    with pytest.raises(SampleError, match="003.*not an image") as caught:
        sequence[0]
    assert "SECRET" not in str(caught.value) and "SECRET" not in repr(caught.value.path)
    sequence.close()


@pytest.mark.parametrize("requests", [0, -1, True, 2.5])
def test_a_number_of_requests_that_makes_no_sense_is_refused(site: Site, requests: object) -> None:
    with pytest.raises(ConfigError, match="requests"):
        sequence_of(put_images(site, 4), requests=requests)


def test_a_local_copy_of_local_files_is_refused(numbered: Callable[[int], Index], tmp_path: object) -> None:
    with pytest.raises(ConfigError, match="local_copy"):
        sequence_of(numbered(4), local_copy=tmp_path)
