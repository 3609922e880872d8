"""Real servers for the tests: an HTTP server with switches, and an S3-compatible one."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


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


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Environment of an S3-compatible server of this machine, with a bucket "photos"; yields its address."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install -e '.[remote]'")
    server_module = pytest.importorskip("moto.server", reason="moto is not installed: pip install -e '.[dev]'")
    import s3fs

    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret-of-someone",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("photos")
        yield settings["AWS_ENDPOINT_URL"]
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        server.stop()
