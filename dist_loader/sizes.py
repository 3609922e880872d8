"""Sizes as people write them: `4096` samples or `"4GiB"` of memory."""

from __future__ import annotations

import re

import numpy as np

from dist_loader.errors import ConfigError

_UNITS = {"b": 1} | {
    f"{prefix}{suffix}": base**power
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}
_SIZE = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([a-z]+)\s*", re.IGNORECASE)
_SAMPLES = re.compile(r"\s*[0-9]{1,15}\s*")


def parse_bytes(text: str) -> int:
    """Bytes in a size such as `"512MiB"` or `"1.5GB"`.

    Raises:
        ConfigError: when it is not a number followed by one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.
    """
    match = _SIZE.fullmatch(text)
    unit = _UNITS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f'not a size: {text!r}; write it as "512MiB" or "4GiB"')
    return int(float(match[1]) * unit)


def batches_in_host_batch(host_batch: int | str, batch: int, sample_bytes: int) -> int:
    """How many batches of `batch` samples fit in a host batch.

    Args:
        host_batch: samples, or a size of memory such as `"4GiB"`.
        batch: samples in a batch of one process.
        sample_bytes: bytes of one decoded sample.

    Raises:
        ConfigError: not even one batch fits, or `host_batch` is neither a whole number nor a size.
    """
    if isinstance(host_batch, str) and not _SAMPLES.fullmatch(host_batch):
        held = parse_bytes(host_batch) // (batch * sample_bytes)
        needed = f"{batch * sample_bytes} bytes for its {batch} samples of {sample_bytes} bytes"
    elif isinstance(host_batch, bool) or not isinstance(host_batch, int | np.integer | str):
        raise ConfigError(f'host_batch must be a number of samples or a size such as "4GiB", not {host_batch!r}')
    else:
        held = int(host_batch) // batch
        needed = f"{batch} samples"
    if held < 1:
        raise ConfigError(f"host_batch {host_batch!r} is smaller than one device batch, which needs {needed}")
    return held


def accumulation(global_batch: int, device_batch: int, replicas: int, world_size: int) -> int:
    """How many device batches each device computes for one update over a global batch.

    Raises:
        ConfigError: the global batch is no multiple of device_batch x replicas x world_size.
    """
    at_once = device_batch * replicas * world_size
    accumulate, rest = divmod(global_batch, at_once)
    if rest:
        raise ConfigError(
            f"global_batch {global_batch} must be a multiple of {at_once}, which is device_batch "
            f"{device_batch} x {replicas} replicas x {world_size} ranks"
        )
    return accumulate


def at_least_one(name: str, value: int) -> int:
    """A setting that counts something.

    Raises:
        ConfigError: it is no whole number of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name} must be a whole number of at least 1, not {value!r}")
    return value


def checked_seconds(name: str, value: float) -> float:
    """A setting that bounds a time.

    Raises:
        ConfigError: it is no number above 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigError(f"{name} must be a number of seconds above 0, not {value!r}")
    return float(value)
