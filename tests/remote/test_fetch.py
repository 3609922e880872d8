"""Files from a web server that is slow, refuses, hangs up or falls silent."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("aiohttp", reason="the libraries for remote files are not installed: pip install -e '.[remote]'")

from dist_loader.errors import ConfigError
from dist_loader.remote.address import redacted, redacted_text, scheme_of
from dist_loader.remote.fetch import Fetcher
from dist_loader.remote.retry import FetchError, Limits
from tests.remote.conftest import Site, free_address, full_server

pytestmark = pytest.mark.distributed

QUICK = Limits(tries=2, connect=0.25, silence=0.25, one_try=4.0, total=12.0)
BODY = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def fetcher() -> Fetcher:
    return Fetcher("http", 32, QUICK)


@pytest.mark.parametrize("faults", [["ok"], [503, "ok"], [429, "ok"], ["cut", "ok"], ["half", "ok"]])
def test_a_file_comes_as_it_is_in_as_many_requests_as_it_takes(site: Site, fetcher: Fetcher, faults: list) -> None:
    site.files["/a.bin"], site.faults["/a.bin"] = BODY, faults
    assert fetcher.read(f"{site.address}/a.bin") == BODY
    assert site.requests["/a.bin"] == len(faults)


@pytest.mark.parametrize(
    ("fault", "requests", "words"),
    [
        (404, 1, "no such file"),
        (403, 1, "403"),
        (410, 1, "410"),
        (503, 2, "503"),
        ("silent", 2, "imeout"),
        ("half", 2, "imeout"),
        ("cut", 2, "Payload"),
    ],
)
def test_what_cannot_be_had_is_an_error_in_bounded_time_that_keeps_credentials_to_itself(
    site: Site, fetcher: Fetcher, fault: int | str, requests: int, words: str
) -> None:
    site.files["/a.bin"], site.faults["/a.bin"] = BODY, [fault]
    secret = "0123secret"
    signed = f"/a.bin?signature={secret}"
    start = time.monotonic()
    with pytest.raises(FetchError, match=words) as caught:
        fetcher.read(site.address + signed)
    assert time.monotonic() - start < QUICK.total + 1
    assert site.requests["/a.bin"] == requests
    assert f"({requests} tr" in str(caught.value)
    assert secret not in "".join(traceback.format_exception(caught.value))


def test_all_tries_together_have_a_bound(site: Site) -> None:
    site.files["/a.bin"], site.faults["/a.bin"] = BODY, ["silent"]
    slow = Fetcher("http", 1, Limits(tries=100, connect=1, silence=60, one_try=60, total=0.5))
    start = time.monotonic()
    with pytest.raises(FetchError, match="no answer in time"):
        slow.read(f"{site.address}/a.bin")
    assert 0.4 < time.monotonic() - start < 2


def test_a_server_that_is_gone_is_tried_again_and_then_named() -> None:
    with pytest.raises(FetchError, match=r"Connect.*\(2 tries"):
        Fetcher("http", 1, QUICK).read(f"{free_address()}/a.bin")


def test_a_server_that_does_not_take_the_connection_is_an_error() -> None:
    with full_server() as address, pytest.raises(FetchError):
        Fetcher("http", 1, QUICK).read(f"{address}/a.bin")


def test_as_many_requests_are_in_flight_as_threads_ask(site: Site, fetcher: Fetcher) -> None:
    site.latency = 0.1
    site.files = {f"/{n}.bin": BODY + bytes([n]) for n in range(24)}
    with ThreadPoolExecutor(24) as pool:
        got = list(pool.map(fetcher.read, (site.address + path for path in site.files)))
    assert got == list(site.files.values())
    assert site.most_at_once >= 16


@pytest.mark.parametrize("scheme", ["nothing-such", "memory", "reference"])
def test_a_scheme_that_cannot_be_read_in_bounded_time_is_refused(scheme: str) -> None:
    with pytest.raises(ConfigError, match=scheme):
        Fetcher(scheme, 1)


@pytest.mark.parametrize(
    ("path", "scheme", "shown"),
    [
        ("/data/a?b.jpg", None, "/data/a?b.jpg"),
        ("C:\\data", None, "C:\\data"),
        ("s3://bucket/a.jpg", "s3", "s3://bucket/a.jpg"),
        ("HTTPS://me:word@host:8/a.jpg?X-Amz-Signature=1#x", "https", "HTTPS://host:8/a.jpg?..."),
    ],
)
def test_addresses_are_told_from_paths_and_shown_without_what_may_be_secret(
    path: str, scheme: str | None, shown: str
) -> None:
    assert scheme_of(path) == scheme
    assert redacted(path) == shown


def test_addresses_within_a_text_are_redacted() -> None:
    assert redacted_text("no\n url='http://h/a?key=1' here") == "no url='http://h/a?...' here"


def test_local_files_bring_in_no_network_library() -> None:
    code = (
        "import sys, dist_loader.index, dist_loader.readers.image, dist_loader.remote.source\n"
        "print([name for name in ('fsspec', 'aiohttp', 's3fs', 'asyncio.events') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "fsspec" not in done.stdout and "aiohttp" not in done.stdout and "s3fs" not in done.stdout
