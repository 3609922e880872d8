"""What every rank is started as: `python -m dist_loader.launching.rank [--log-dir=DIR] [--gloo[=IF]] -- COMMAND...`.

It runs the command as its child, hands signals on to it, tells the launcher how it ended, and leaves nothing of it
behind. When the launcher is gone, the command is ended too. Without a launcher that listens (a command that was copied
from `--dry-run`), it does the rest all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dist_loader.ending import ENDED_BY_ANOTHER
from dist_loader.errors import ConfigError
from dist_loader.launching.keeper import Keeper, end_session, end_with
from dist_loader.launching.machine import interface_of
from dist_loader.launching.meeting import way
from dist_loader.launching.messages import CAUSE, RANK_WAITS, VARIABLE, Inbox, encode, make_lively, read_address
from dist_loader.launching.output import Relay
from dist_loader.launching.signals import STOPPING, Signals
from dist_loader.world import World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONNECTING = 20.0  # seconds for all of the launcher's addresses together
GENTLE = 5.0  # between SIGTERM and SIGKILL, when the launcher is gone
ONCE = 1.0  # seconds in which the same signal by two ways (the launcher's, the batch system's) counts once


@dataclass(frozen=True)
class Options:
    """What the launcher wants of a rank."""

    command: tuple[str, ...]
    log_dir: str | None = None
    gloo: str | None = None  # the ranks meet by Gloo, on this network interface, or "" for the one towards the launcher


def main(argv: Sequence[str]) -> int:
    """Run the command; its exit code, or 128 and the number of the signal that ended it."""
    options = read_options(argv)
    try:
        world = World.detect()
    except ConfigError as error:
        return _complain(str(error), 2)
    with Signals() as signals:
        try:
            launcher = _connect(world)
            inbox = Inbox()
            told = {} if options.gloo is None else _meet(launcher, inbox, signals, options.gloo)
        except OSError as error:
            return _complain(f"rank {world.rank} on {socket.gethostname()}: {error}", 1)
        return told if isinstance(told, int) else _run(options, world, launcher, inbox, signals, told)


def read_options(argv: Sequence[str]) -> Options:
    """The arguments, of which all behind the first "--" is the command, or one is all of it as JSON."""
    log_dir = gloo = None
    for number, word in enumerate(argv):
        if word == "--":
            return Options(tuple(argv[number + 1 :]), log_dir, gloo)
        key, _, value = word.partition("=")
        if key == "--json":
            return Options(tuple(json.loads(value)), log_dir, gloo)
        if key == "--log-dir":
            log_dir = value
        elif key == "--gloo":
            gloo = value
        else:
            break
    raise SystemExit("usage: python -m dist_loader.launching.rank [--log-dir=DIR] [--gloo[=INTERFACE]] -- COMMAND...")


def _connect(world: World) -> socket.socket | None:
    """A connection to the launcher, introduced; None if there is no launcher.

    Raises:
        OSError: it cannot be reached.
    """
    if VARIABLE not in os.environ:
        return None
    secret, addresses = read_address(os.environ[VARIABLE])
    deadline = time.monotonic() + CONNECTING
    failures = []
    for address in addresses:
        try:
            connection = socket.create_connection(address, timeout=min(5.0, max(0.1, deadline - time.monotonic())))
        except OSError as error:
            failures.append(f"{address[0]}:{address[1]} ({error.strerror or error})")
            continue
        make_lively(connection, RANK_WAITS)
        me = {"rank": world.rank, "size": world.size, "host": socket.gethostname(), "pid": os.getpid()}
        connection.sendall(encode({"secret": secret, **me}))
        return connection
    raise OSError(f"cannot reach the launcher at {', '.join(failures)}: it has ended, or a firewall is in between")


def _meet(launcher: socket.socket | None, inbox: Inbox, signals: Signals, interface: str) -> dict[str, str] | int:
    """What Horovod must know to meet the other ranks by Gloo, once all have called the launcher; or an exit code.

    Raises:
        OSError: the launcher is not there, or is gone.
    """
    if launcher is None:
        raise OSError(f"--gloo: {VARIABLE} is not set; ranks meet where `dist-loader launch` tells them")
    with selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        selector.register(launcher, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            stopping = [number for number in signals.arrived() if number in STOPPING]
            piece = _receive(launcher) if launcher in ready else None
            orders = inbox.feed(piece) if piece else []
            if stopping or any("end" in order or order.get("signal") in STOPPING for order in orders):
                _tell(launcher, {"signal": int(signal.SIGTERM), "seconds": 0.0})
                return 128 + signal.SIGTERM
            if piece == b"":
                raise OSError("the launcher has ended")
            for order in orders:
                if "meet" in order:
                    here = launcher.getsockname()[0]
                    name = interface or os.environ.get("HOROVOD_GLOO_IFACE") or interface_of(here)
                    if name is None:
                        raise OSError(f"no network interface has the address {here}; say which: --network-interfaces")
                    told = {**order["meet"], **way(launcher.getpeername()[0], order["port"], name)}
                    return {"NCCL_SOCKET_IFNAME": os.environ.get("NCCL_SOCKET_IFNAME", name), **told}


def _run(
    options: Options,
    world: World,
    launcher: socket.socket | None,
    inbox: Inbox,
    signals: Signals,
    told: Mapping[str, str],
) -> int:
    folder = tempfile.mkdtemp(prefix=f"dist_loader-rank-{world.rank}-")
    keeper = Keeper(folder, gentle=1.0)
    started = time.monotonic()
    me = os.getpid()
    try:
        log = _log(options.log_dir, world.rank)
        # Alone, the command has the terminal to itself. mpirun gives each rank a terminal that is none.
        alone = world.launcher == "none" and sys.stdout.isatty()
        output = log or (None if alone else subprocess.PIPE)
        child = subprocess.Popen(
            options.command,
            env={**_environment(folder), **told},
            stdout=output,
            stderr=subprocess.STDOUT if log else output,
            start_new_session=True,  # so that the keeper finds all of it
            preexec_fn=lambda: end_with(me, signal.SIGKILL),  # noqa: PLW1509 - this process has one thread
        )
    except OSError as error:
        keeper.done()
        _tell(launcher, {"exit": 2, "seconds": 0.0})
        return _complain(f"rank {world.rank} on {socket.gethostname()}: cannot run {options.command[0]!r}: {error}", 2)
    keeper.watch(child.pid)
    relays = [Relay(pipe, descriptor) for pipe, descriptor in ((child.stdout, 1), (child.stderr, 2)) if pipe]
    code = _watch(child, launcher, inbox, signals)
    end_session(child.pid, gentle=0.0)  # what the command started and left behind
    seconds = time.monotonic() - started
    for relay in relays:
        relay.finish(5.0)
    _tell(launcher, {"exit": code, "seconds": seconds} if code >= 0 else {"signal": -code, "seconds": seconds})
    if code == ENDED_BY_ANOTHER and launcher is not None:
        # mpirun would end the rank that is the cause as soon as it saw this one go, and nobody would know its code.
        select.select([launcher], [], [], CAUSE)
    keeper.watch(0)
    keeper.done()
    return code if code >= 0 else 128 - code


def _watch(child: subprocess.Popen[bytes], launcher: socket.socket | None, inbox: Inbox, signals: Signals) -> int:
    """Hand signals on until the command has ended; its return code."""
    parent = os.getppid()
    sent: dict[int, float] = {}
    deadline: float | None = None  # when the command is made to end

    def hand_on(number: int) -> None:
        now = time.monotonic()
        if now - sent.get(number, -ONCE) >= ONCE and child.poll() is None:
            sent[number] = now
            child.send_signal(number)

    with selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        if launcher is not None:
            selector.register(launcher, selectors.EVENT_READ)
        while child.poll() is None:
            ready = {key.fileobj for key, _ in selector.select(0.2 if deadline else 1.0)}
            for number in signals.arrived():
                hand_on(number)
            orders: list[dict[str, Any]] = []
            alone = os.getppid() != parent
            if launcher is not None and launcher in ready:
                piece = _receive(launcher)
                orders = inbox.feed(piece)
                if not piece:
                    selector.unregister(launcher)
                    alone = True
            if alone and deadline is None:
                orders.append({"end": GENTLE})
            for order in orders:
                if "signal" in order:
                    hand_on(int(order["signal"]))
                elif "end" in order:
                    hand_on(signal.SIGTERM)
                    deadline = time.monotonic() + float(order["end"])
            if deadline is not None and time.monotonic() >= deadline and child.poll() is None:
                child.kill()
    return child.wait()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:  # reset, or its machine is gone
        return b""


def _tell(launcher: socket.socket | None, message: dict[str, Any]) -> None:
    if launcher is not None:
        with contextlib.suppress(OSError):  # the launcher is gone
            launcher.settimeout(5.0)
            launcher.sendall(encode(message))


def _log(log_dir: str | None, rank: int) -> IO[bytes] | None:
    if log_dir is None:
        return None
    Path(log_dir).mkdir(parents=True, exist_ok=True)
    again = os.environ.get("DIST_LOADER_RESTARTS", "0") != "0"
    return (Path(log_dir) / f"rank-{rank}.log").open("ab" if again else "wb")


def _environment(folder: str) -> dict[str, str]:
    """The command's: a temporary folder of its own, output at once, and not the launcher's secret."""
    own = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return {"PYTHONUNBUFFERED": "1", **own, "TMPDIR": folder}


def _complain(what: str, code: int) -> int:
    print(f"dist-loader: {what}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
