"""The process over a rank, with a launcher that only listens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dist_loader.launching.messages import VARIABLE, address_text, encode
from tests.launching.conftest import ROOT

SLEEPS = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


def rank(folder: Path, address: str, code: str, *options: str) -> subprocess.Popen[str]:
    place = {f"OMPI_COMM_WORLD_{name}": "1" for name in ("RANK", "LOCAL_RANK")}
    place |= {f"OMPI_COMM_WORLD_{name}": "2" for name in ("SIZE", "LOCAL_SIZE")}
    return subprocess.Popen(
        [sys.executable, "-m", "dist_loader.launching.rank", *options, "--", sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(folder), VARIABLE: address, **place},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def introduced(listener: socket.socket) -> Iterator[tuple[socket.socket, Callable[[], dict[str, object]]]]:
    """The connection of a rank, and what reads its next words."""
    connection, _ = listener.accept()
    connection.settimeout(20)
    with connection, connection.makefile() as lines:
        yield connection, lambda: json.loads(lines.readline())


def test_it_introduces_itself_takes_signals_and_tells_the_end(listener: socket.socket, tmp_path: Path) -> None:
    address = address_text("secret", [("127.0.0.1", 1), listener.getsockname()])  # nobody is at the first
    watched = rank(tmp_path, address, f"import os; assert {VARIABLE!r} not in os.environ; {SLEEPS}")
    with introduced(listener) as (connection, hear):
        said = hear()
        assert (said["secret"], said["rank"], said["size"], said["pid"]) == ("secret", 1, 2, watched.pid)
        assert watched.stdout.readline() == "ready\n"
        connection.sendall(encode({"signal": int(signal.SIGTERM)}))
        assert hear()["signal"] == signal.SIGTERM
    watched.communicate(timeout=20)
    assert (watched.returncode, list(tmp_path.iterdir())) == (143, [])


@pytest.mark.parametrize("deaf", [False, True])
def test_it_ends_the_script_when_the_launcher_is_gone(listener: socket.socket, tmp_path: Path, deaf: bool) -> None:
    """In 5 s at most, so the deaf one is asked more firmly."""
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
    watched = rank(tmp_path, address_text("secret", [listener.getsockname()]), f"{ignore}{SLEEPS}")
    with introduced(listener) as (connection, hear):
        hear()
        assert watched.stdout.readline() == "ready\n"
        if deaf:
            connection.sendall(encode({"end": 0.1}))
            assert hear()["signal"] == signal.SIGKILL
    watched.communicate(timeout=20)
    assert (watched.returncode, list(tmp_path.iterdir())) == (137 if deaf else 143, [])


def test_without_its_launcher_it_does_not_start(tmp_path: Path) -> None:
    watched = rank(tmp_path, address_text("secret", [("127.0.0.1", 1)]), SLEEPS)
    out, err = watched.communicate(timeout=20)
    assert (watched.returncode, out) == (1, "")
    assert "dist-loader: rank 1 on " in err
    assert "cannot reach the launcher at 127.0.0.1:1 (Connection refused)" in err


@pytest.mark.parametrize("end", ["signal", "order", "gone"])
def test_while_it_waits_to_be_told_where_the_ranks_meet(listener: socket.socket, tmp_path: Path, end: str) -> None:
    """The script is not started, and a job that is ended while ranks are still missing ends at once."""
    watched = rank(tmp_path, address_text("secret", [listener.getsockname()]), SLEEPS, "--gloo")
    with introduced(listener) as (connection, hear):
        hear()
        if end == "signal":
            watched.send_signal(signal.SIGTERM)
        elif end == "order":
            connection.sendall(encode({"end": 5}))
        if end != "gone":
            assert hear()["signal"] == signal.SIGTERM
    out, err = watched.communicate(timeout=20)
    assert (watched.returncode, out) == (1 if end == "gone" else 143, "")
    assert ("the launcher has ended" in err) == (end == "gone")


def test_ranks_that_meet_by_gloo_need_their_launcher(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    env.pop(VARIABLE, None)
    command = [sys.executable, "-m", "dist_loader.launching.rank", "--gloo", "--", "true"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "`dist-loader launch` tells them" in done.stderr
