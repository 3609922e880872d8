"""Sizes as people write them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.sizes import batches_in_host_batch, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1B", 1),
        ("0B", 0),
        ("10kB", 10_000),
        ("10KiB", 10_240),
        ("512MiB", 512 * 2**20),
        ("512MB", 512 * 10**6),
        ("4GiB", 2**32),
        ("4GB", 4 * 10**9),
        ("2TiB", 2**41),
        ("2TB", 2 * 10**12),
        ("1.5GB", 1_500_000_000),
        ("0.5KiB", 512),
        ("4gib", 2**32),
        ("4GIB", 2**32),
        ("  4 GiB\n", 2**32),
        ("4\tGiB", 2**32),
    ],
)
def test_a_size_in_bytes(text, size):
    assert parse_bytes(text) == size


@given(st.integers(0, 10**6), st.sampled_from(["", "k", "M", "G", "T"]), st.booleans())
def test_a_whole_number_of_units_is_exact(count, prefix, binary):
    power = ["", "k", "M", "G", "T"].index(prefix)
    unit = prefix + ("i" if binary and prefix else "") + "B"
    assert parse_bytes(f"{count}{unit}") == count * (1024 if binary else 1000) ** power


@pytest.mark.parametrize(
    "text",
    ["", " ", "GiB", "4", "4G", "4 Gi", "4PiB", "-4GiB", "+4GiB", "4,5GiB", "1e9B", ".5GiB", "4.GiB", "4GiB!", "4 4GiB",
     "4GiBs", "0x4B", "nanB", "infB", "٤GiB", "²GiB", "9" * 400 + "B"],
)  # fmt: skip
def test_a_text_that_is_no_size_is_refused_and_shown(text):
    with pytest.raises(ConfigError) as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)
    assert "4GiB" in str(caught.value)  # how to write it


@pytest.mark.parametrize(
    ("host_batch", "batches"),
    [
        (8, 1),
        (15, 1),
        (16, 2),
        (np.int64(16), 2),
        ("16", 2),
        (" 16 ", 2),
        ("800B", 1),
        ("1599B", 1),
        ("1.6kB", 2),
        ("1GiB", 2**30 // 800),
        (10**15, 10**15 // 8),
    ],
)
def test_whole_batches_of_8_samples_of_100_bytes_that_fit(host_batch, batches):
    assert batches_in_host_batch(host_batch, batch=8, sample_bytes=100) == batches


@pytest.mark.parametrize(
    ("host_batch", "said"),
    [
        (7, "8 samples"),
        (0, "8 samples"),
        (-100, "8 samples"),
        ("7", "8 samples"),
        ("799B", "800 bytes"),
        ("0B", "800 bytes"),
    ],
)
def test_a_host_batch_below_a_device_batch_is_refused_with_what_it_needs(host_batch, said):
    with pytest.raises(ConfigError, match="smaller than one device batch") as caught:
        batches_in_host_batch(host_batch, batch=8, sample_bytes=100)
    assert repr(host_batch) in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "host_batch", [True, False, 1e9, 16.0, None, b"4GiB", [16], "²", "４²", "16.0", "-16", "9" * 5000]
)
def test_a_host_batch_that_is_neither_a_number_nor_a_size_is_refused(host_batch):
    with pytest.raises(ConfigError) as caught:
        batches_in_host_batch(host_batch, batch=8, sample_bytes=100)
    assert repr(host_batch) in str(caught.value)
