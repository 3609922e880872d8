"""The content of remote files, asked for by many threads at once and carried by fsspec's one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as Overdue
from typing import Any, TypeVar

from dist_loader.remote.filesystem import open_filesystem
from dist_loader.remote.retry import FetchError, Limits, with_retries

Result = TypeVar("Result")

_GRACE = 5.0  # seconds, for the event loop to end a try


class Fetcher:
    """Reads whole files of one scheme, from any number of threads: each call is one request in flight.

    Args:
        scheme: such as "https".
        requests: how many threads will ask at the same time.
        limits: how long it may take.

    Raises:
        ConfigError: a library is missing; see `open_filesystem`.
    """

    def __init__(self, scheme: str, requests: int, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._filesystem = open_filesystem(scheme, requests, self._limits)

    def read(self, address: str) -> bytes:
        """All of a file.

        Raises:
            FetchError: it was not to be had, within `limits.total` seconds (and five more if the event loop hangs).
        """

        async def content() -> bytes:
            data: bytes = await self._filesystem._cat_file(address)  # noqa: SLF001 (fsspec's name for "asynchronous")
            return data

        return run(with_retries(content, self._limits), self._filesystem.loop, self._limits.total + _GRACE)


def run(work: Coroutine[Any, Any, Result], loop: asyncio.AbstractEventLoop, seconds: float) -> Result:
    """What a coroutine returns, run by the event loop of another thread.

    Raises:
        FetchError: nothing came of it in time.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result(seconds)
    except Overdue:
        future.cancel()
    raise FetchError(f"nothing came of it within {seconds:g} s: fsspec's event loop hangs")
