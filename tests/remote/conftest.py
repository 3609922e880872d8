"""Real servers for the tests: an HTTP server with switches, and object stores."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import fsspec
import fsspec.config
import pytest

from dist_loader.remote.filesystem import open_filesystem
from dist_loader.remote.retry import Limits


def free_address() -> str:
    """An address of this machine at which nobody is."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@contextlib.contextmanager
def full_server() -> Iterator[str]:
    """The address of a server whose backlog is full: further connections wait without an answer."""
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield f"http://127.0.0.1:{full.getsockname()[1]}"


class Site:
    """A web server on this machine.

    What is asked for decides what happens: `files` by path, after what `faults` says. A fault is a list of what to do
    on the first, second, ... request of a path: a status such as 503; "silent" (no answer), "half" (half of the body,
    then nothing more), "cut" (half of the body, then the connection ends), "ok". The last one holds on.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.latency = 0.0
        self.requests: Counter[str] = Counter()
        self.now, self.most_at_once = 0, 0
        self.ended = threading.Event()
        self._lock = threading.Lock()
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                site._answer(self)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *args: object) -> None:
                pass  # a client that hangs up in time is what is tested

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        with self._lock:
            faults = self.faults.get(path, ["ok"])
            fault = faults[min(self.requests[path], len(faults) - 1)]
            self.requests[path] += 1
            self.now += 1
            self.most_at_once = max(self.most_at_once, self.now)
        try:
            time.sleep(self.latency)
            self._respond(request, fault, self.files.get(path))
        finally:
            with self._lock:
                self.now -= 1

    def _respond(self, request: BaseHTTPRequestHandler, fault: int | str, body: bytes | None) -> None:
        if fault == "silent":
            self.ended.wait(30)
            request.close_connection = True
        elif isinstance(fault, int) or body is None:
            request.send_response(fault if isinstance(fault, int) else 404)
            request.send_header("Content-Length", "0")
            request.end_headers()
        else:
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body if fault == "ok" else body[: len(body) // 2])
            request.wfile.flush()
            if fault == "half":
                self.ended.wait(30)
            request.close_connection = fault != "ok"


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@dataclass(frozen=True)
class Store:
    """A kind of object store, and how its client is told of a server.

    Attributes:
        scheme: of its addresses.
        client: the module that asks.
        where: the variable that holds the server's address.
        more: other variables.
        options: what else fsspec's configuration has for it.
        path: what a server is asked for, for an object in the bucket "photos".
    """

    scheme: str
    client: str
    where: str
    more: Mapping[str, str]
    options: Mapping[str, str]
    path: str

    def point_to(self, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the client ask a server at an address."""
        for name, value in {self.where: address, **self.more}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(fsspec.config.conf, self.scheme, dict(self.options))


S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "secret-of-someone",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
S3 = Store("s3", "s3fs", "AWS_ENDPOINT_URL", S3_VARIABLES, {}, "/photos/{}")
GOOGLE = Store("gs", "gcsfs", "STORAGE_EMULATOR_HOST", {}, {"token": "anon"}, "/download/storage/v1/b/photos/o/{}")


@pytest.fixture(scope="session", params=[S3, GOOGLE], ids=lambda store: store.scheme)
def store(request: pytest.FixtureRequest) -> Store:
    """A kind of store whose client is installed."""
    pytest.importorskip(request.param.client, reason="its client is not installed: pip install -e '.[remote]'")
    return request.param


@pytest.fixture(scope="session")
def bucket(store: Store) -> Iterator[Any]:
    """A file system with an empty bucket "photos", on a server of this machine, of which the environment tells."""
    with pytest.MonkeyPatch.context() as monkeypatch, _server(store) as address:
        store.point_to(address, monkeypatch)
        filesystem = open_filesystem(store.scheme, 4, Limits())
        filesystem.mkdir("photos")
        yield filesystem


@contextlib.contextmanager
def _server(store: Store) -> Iterator[str]:
    host, port = "127.0.0.1", _free_port()
    if store is S3:
        module = pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[dev]'")
        server = module.ThreadedMotoServer(ip_address=host, port=port, verbose=False)
    else:
        name = "gcp_storage_emulator.server"
        module = pytest.importorskip(name, reason="gcp-storage-emulator is not installed: pip install -e '.[dev]'")
        server = module.create_server(host, port, in_memory=True)
    server.start()
    yield f"http://{host}:{port}"
    server.stop()


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port
