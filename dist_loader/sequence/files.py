"""How a sequence reads files: from where, with how many threads, and for how long at most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dist_loader.cores import reading_threads
from dist_loader.readers.clock import DecodeClock
from dist_loader.remote.source import source_for
from dist_loader.sizes import at_least_one, checked_seconds
from dist_loader.topology import agreed_world

if TYPE_CHECKING:
    import os

    from dist_loader.readers import Paths
    from dist_loader.readers.source import Source
    from dist_loader.sequence.options import Options


def clocked_source(
    paths: Paths,
    requests: int,
    local_copy: str | os.PathLike[str] | None,
    local_copy_bytes: str,
    decode_timeout: float,
    options: Options,
) -> tuple[DecodeClock, int]:
    """The clock, whose source readers are to use, and the number of reading threads.

    See `ImageSequence` for the arguments.

    Raises:
        ConfigError: a value that cannot work.
    """
    source, reading = asked_source(paths, requests, local_copy, local_copy_bytes, options)
    return DecodeClock(source, min(checked_seconds("decode_timeout", decode_timeout), _timeout(options) / 2)), reading


def asked_source(
    paths: Paths,
    requests: int,
    local_copy: str | os.PathLike[str] | None,
    local_copy_bytes: str,
    options: Options,
) -> tuple[Source, int]:
    """The source without a clock, and the number of reading threads; as `clocked_source`."""
    threads, timeout = options.get("threads"), _timeout(options)
    if threads is None:
        threads = reading_threads(agreed_world(options.get("strategy"), options.get("world")))
    at_least_one("threads", threads)
    return source_for(paths, threads, requests, local_copy, local_copy_bytes, timeout)


def _timeout(options: Options) -> float:
    return checked_seconds("timeout", options.get("timeout", 300.0))
