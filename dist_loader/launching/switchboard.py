"""The launcher's end of the connections to its ranks."""

from __future__ import annotations

import contextlib
import hmac
import secrets
import selectors
import signal
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dist_loader.ending import ENDED_BY_ANOTHER
from dist_loader.launching.machine import address_towards
from dist_loader.launching.meeting import places
from dist_loader.launching.messages import CAUSE, LAUNCHER_WAITS, Inbox, address_text, encode, make_lively

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dist_loader.launching.meeting import Store

LOST = 1.0  # seconds that a rank which is gone without a word waits for another's word, which would be the cause


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended.

    Attributes:
        rank: its number.
        host: its machine's own name.
        code: exit code of the script, or 128 and the signal's number.
        reason: in words.
        counts_from: time (monotonic) from which this may be called the first failure.
    """

    rank: int
    host: str
    code: int
    reason: str
    counts_from: float

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host} {self.reason}"


@dataclass
class _Line:
    """A connection, and who is at its other end once that has introduced itself."""

    socket: socket.socket
    inbox: Inbox = field(default_factory=Inbox)
    rank: int | None = None
    host: str = ""


class Switchboard:
    """Listens for the ranks of one start of a job, hears how they end, and sends them signals.

    Args:
        hosts: names of the other machines that ranks will call from; none: only this machine can call.
        ranks: how many will call.
        store: where they meet by Gloo, which each is told when all have called; None: they need no help.
    """

    def __init__(self, hosts: Iterable[str], ranks: int, store: Store | None = None) -> None:
        self._secret = secrets.token_hex(16)
        addresses = sorted({address for host in hosts if (address := address_towards(host))})
        self._listener = socket.create_server(("" if addresses else "127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._port: int = self._listener.getsockname()[1]
        self._addresses = addresses or ["127.0.0.1"]
        self._ranks = ranks
        self._store = store
        self._lines: dict[socket.socket, _Line] = {}
        self._joined: set[int] = set()
        self._ends: dict[int, RankEnd] = {}
        self._orders: list[dict[str, Any]] = []  # for those who call late
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    def address(self) -> str:
        """What the ranks need to know to call, for the environment variable `messages.VARIABLE`."""
        return address_text(self._secret, [(address, self._port) for address in self._addresses])

    def fileno(self) -> int:
        """For a selector: readable when `listen` has something to do."""
        return self._selector.fileno()

    @property
    def joined(self) -> int:
        """How many ranks have called so far."""
        return len(self._joined)

    @property
    def complete(self) -> bool:
        """Whether every rank has called."""
        return len(self._joined) == self._ranks

    def who_is_left(self) -> str:
        """The ranks that are still running, in words; empty if there is none."""
        left = [f"{rank} on {host}" for rank, host in sorted(self.running().items())]
        return f"ranks {', '.join(left)}" if left else ""

    def running(self) -> dict[int, str]:
        """The ranks that have called and not ended, with their hosts."""
        return {line.rank: line.host for line in self._lines.values() if line.rank is not None}

    def ended_well(self) -> bool:
        """Whether every rank has called, and its script has ended with exit code 0."""
        return len(self._ends) == self._ranks and all(end.code == 0 for end in self._ends.values())

    def first_failure(self, now: float) -> RankEnd | None:
        """The rank that failed first, as far as it can be told at a time (monotonic)."""
        if len(self._ends) == self._ranks and all(end.code == ENDED_BY_ANOTHER for end in self._ends.values()):
            now += CAUSE  # there is no other
        failures = [end for end in self._ends.values() if end.code and end.counts_from <= now]
        return min(failures, key=lambda end: end.counts_from, default=None)

    def send(self, order: dict[str, Any]) -> None:
        """Send an order to all ranks, also to those who have not called yet."""
        self._orders.append(order)
        for line in list(self._lines.values()):
            if line.rank is not None:
                self._send(line, order)

    def listen(self) -> None:
        """Take all calls, and hear all that was said until now."""
        while ready := self._selector.select(0):
            for key, _ in ready:
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._hear(self._lines[key.fileobj])  # type: ignore[index] # only sockets are registered

    def close(self) -> None:
        """Hang up. A rank whose script still runs ends it."""
        if self._store is not None:
            self._store.close()
        for line in list(self._lines.values()):
            self._drop(line)
        self._selector.unregister(self._listener)
        self._listener.close()
        self._selector.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            make_lively(connection, LAUNCHER_WAITS)
            self._lines[connection] = _Line(connection)
            self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, line: _Line) -> None:
        now = time.monotonic()
        try:
            piece = line.socket.recv(65536)
        except BlockingIOError:
            return
        except TimeoutError:
            piece, gone, code = b"", "was lost: its host does not answer any more", 1
        except OSError:
            piece, gone, code = b"", "was killed, with the process that watched over it, or its host has ended", 137
        else:
            gone, code = "was killed, with the process that watched over it, or its host has ended", 137
        if not piece:
            if line.rank is not None:
                self._ends.setdefault(line.rank, RankEnd(line.rank, line.host, code, gone, now + LOST))
            self._drop(line)
            return
        for message in line.inbox.feed(piece):
            if line.rank is None:
                self._introduce(line, message)
            else:
                self._ends.setdefault(line.rank, _end(line.rank, line.host, message, now))
        if line.inbox.broken:
            self._drop(line)

    def _introduce(self, line: _Line, message: dict[str, Any]) -> None:
        rank, host, secret = message.get("rank"), message.get("host"), message.get("secret")
        known = isinstance(secret, str) and hmac.compare_digest(secret.encode(), self._secret.encode())
        if not known or not isinstance(rank, int) or not isinstance(host, str):
            line.inbox.broken = True  # a port scanner, or a rank of another job
            return
        line.rank, line.host = rank, host
        self._joined.add(rank)
        for order in self._orders:
            self._send(line, order)
        if self._store is not None and self.complete:
            self._introduce_all(self._store)

    def _introduce_all(self, store: Store) -> None:
        """Tell the ranks who they are and where they meet."""
        told = places({line.rank: line.host for line in self._lines.values() if line.rank is not None})
        store.expect(told)
        for line in self._lines.values():
            if line.rank is not None:
                self._send(line, {"meet": told[line.rank], "port": store.port})

    def _send(self, line: _Line, order: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # it is gone, which will be heard
            line.socket.sendall(encode(order))

    def _drop(self, line: _Line) -> None:
        self._lines.pop(line.socket, None)
        self._selector.unregister(line.socket)
        line.socket.close()


def _end(rank: int, host: str, message: dict[str, Any], now: float) -> RankEnd:
    seconds = float(message.get("seconds", 0))
    if "signal" in message:
        number = int(message["signal"])
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        hint = "; out of memory, or killed by hand" if number == signal.SIGKILL else ""
        # SIGTERM is what launchers send when they have seen another rank, or a host, go.
        now += LOST if number == signal.SIGTERM else 0.0
        return RankEnd(rank, host, 128 + number, f"was ended by {name} after {seconds:.1f} s{hint}", now)
    code = int(message.get("exit", 1))
    # The rank that is the cause may take longer to end than those that its silence ends.
    now += CAUSE if code == ENDED_BY_ANOTHER else 0.0
    return RankEnd(rank, host, code, f"ended with exit code {code} after {seconds:.1f} s", now)
