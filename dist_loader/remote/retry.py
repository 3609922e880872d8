"""What is tried again, after which pause, and when it is given up."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from dist_loader.remote.address import redacted_text

Result = TypeVar("Result")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0  # seconds
_BUSY = {408, 425, 429}  # beside all from 500 on
_BUSY_NUMBERS = {errno.EBUSY, errno.EREMOTEIO}  # s3fs's words for 503 and 500
# By name, for a library is only there if its scheme is used. All that went wrong on the way, and not in the answer.
_ON_THE_WAY = {
    "aiohttp.client_exceptions.ClientError",
    "botocore.exceptions.HTTPClientError",
    "botocore.exceptions.EndpointConnectionError",
    "botocore.exceptions.ConnectTimeoutError",
    "botocore.exceptions.ProxyConnectionError",
    "botocore.exceptions.IncompleteReadError",
    "botocore.exceptions.ChecksumError",
    "botocore.exceptions.FlexibleChecksumError",
    "google.auth.exceptions.TransportError",
    "requests.exceptions.ConnectionError",
    "requests.exceptions.Timeout",
    "gcsfs.checkers.ChecksumError",
}


class FetchError(Exception):
    """What could not be fetched, in words without an address: no credentials are in them."""


@dataclass(frozen=True)
class Limits:
    """How long something remote may take.

    Attributes:
        tries: how many requests are made for one file, the first included.
        connect: seconds until a connection must stand.
        silence: seconds within which the next bytes must come.
        one_try: seconds for one request, from connecting to the last byte.
        total: seconds for all tries and the pauses between them.
    """

    tries: int = 5
    connect: float = 10.0
    silence: float = 15.0
    one_try: float = 60.0
    total: float = 120.0


async def with_retries(get: Callable[[], Awaitable[Result]], limits: Limits) -> Result:
    """What `get` returns, asked for again where that may help.

    The pauses double from a quarter of a second to 8 s, each shortened at random by up to a half, so that the many
    requests that failed together do not come back together.

    Raises:
        FetchError: it was not to be had; says how often and how long it was tried, and what came of it.
    """
    start = time.monotonic()
    tries = 0
    while True:
        tries += 1
        try:
            async with asyncio.timeout(min(limits.one_try, start + limits.total - time.monotonic())):
                return await get()
        except Exception as error:  # noqa: BLE001 (each library has errors of its own)
            reason, again = _described(error), worth_retrying(error)
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (tries - 1)) * random.uniform(0.5, 1)  # noqa: S311 (no secret)
        passed = time.monotonic() - start
        if not again or tries >= limits.tries or passed + pause >= limits.total:
            # Outside of the except clause: a traceback would show the library's error, and with it the address.
            raise FetchError(f"{reason} ({tries} {'try' if tries == 1 else 'tries'} in {passed:.1f} s)")
        await asyncio.sleep(pause)


def worth_retrying(error: BaseException) -> bool:
    """Whether the same request may well succeed a moment later."""
    status = _status(error)
    if status is not None:
        return status >= 500 or status in _BUSY
    if isinstance(error, ValueError):  # an address that makes no sense, a certificate that is not trusted
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if isinstance(error, OSError) and error.errno in _BUSY_NUMBERS:
        return True
    return any(f"{kind.__module__}.{kind.__qualname__}" in _ON_THE_WAY for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error stands for: aiohttp's, gcsfs's, or botocore's below that of s3fs."""
    for name in ("status", "code"):  # in this order: aiohttp warns of its code
        value = getattr(error, name, None)
        if isinstance(value, int) and value >= 100:
            return value
    answer = getattr(error.__cause__ or error, "response", None)
    if isinstance(answer, dict):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status if isinstance(status, int) else None
    return None


def _described(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    status = _status(error)
    if status is not None:
        words = getattr(error, "message", "") or error
        return f"HTTP {status}: {redacted_text(str(words))}"
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return f"{type(error).__name__}: {redacted_text(str(error))}"
