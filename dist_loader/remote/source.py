"""The source of an index's files: this machine, or one reached over a network."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.readers.source import Source
from dist_loader.remote.address import scheme_of
from dist_loader.sizes import at_least_one, parse_bytes

if TYPE_CHECKING:
    from dist_loader.readers import Paths


def source_for(
    index: Paths,
    threads: int,
    requests: int,
    local_copy: str | os.PathLike[str] | None,
    local_copy_bytes: str,
    timeout: float,
) -> tuple[Source, int]:
    """Where the files of an index are read from, and with how many threads.

    Remote files are read by as many threads as requests are to be in flight, and `threads` of them decode at the same
    time. So what was fetched and not yet decoded is at most one file for each of `requests`.

    Args:
        index: its paths say where the files are: an index, or a column of a table.
        threads: how many decode.
        requests: how many remote files are asked for at the same time.
        local_copy: a folder that keeps what was fetched; None for none.
        local_copy_bytes: how much it may keep, such as "100GiB".
        timeout: seconds after which a batch is overdue. A file is given up in half of that at most, so that the error
            names it.

    Raises:
        ConfigError: a value that cannot work; a library that is missing; a local copy of files that are local.
    """
    scheme = scheme_of(index.path(0)) if len(index) else None
    if scheme is None:
        if local_copy is not None:
            raise ConfigError(f"local_copy={os.fspath(local_copy)!r} is for remote addresses, and {index} is local")
        return Source(), threads
    at_least_one("requests", requests)

    from dist_loader.remote.fetch import Fetcher
    from dist_loader.remote.local_copy import LocalCopy
    from dist_loader.remote.retry import Limits

    read = Fetcher(scheme, requests, Limits(total=min(Limits.total, timeout / 2))).read
    if local_copy is not None:
        read = LocalCopy(local_copy, parse_bytes(local_copy_bytes), read).read
    return Source(read, threading.BoundedSemaphore(threads)), requests
