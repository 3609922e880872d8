"""What the launcher and its ranks tell each other: JSON objects, one a line, over TCP.

A rank introduces itself with the launcher's secret, then says how its script ended. The launcher sends signals for the
script. Each notices when the other is gone: the kernel ends a connection with its process, and TCP's keepalive ends it
when the other's machine does not answer any more.
"""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from typing import Any

CAUSE = 5.0  # seconds that a rank which says that another one ended it waits for what that one says
VARIABLE = "DIST_LOADER_LAUNCHER"  # where the ranks learn the launcher's addresses and its secret
LONGEST = 64 * 1024  # bytes of a line; whoever sends more is no rank


# Seconds without a sign of life from the machine at the other end. mpirun itself takes 11 (`commands.KEEPALIVE`).
# The launcher knows before, to say who was lost; the ranks after, when mpirun's helper beside them has ended by itself.
LAUNCHER_WAITS = 9
RANK_WAITS = 16


def make_lively(connection: socket.socket, seconds: int) -> None:
    """Have a connection fail when its other end's machine has not answered for some seconds, at least 7."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds - 6)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * seconds)  # what is sent and not taken


def encode(message: dict[str, Any]) -> bytes:
    """One line."""
    return json.dumps(message).encode() + b"\n"


@dataclass
class Inbox:
    """Puts the pieces of a stream together to messages."""

    rest: bytes = b""
    broken: bool = field(default=False)

    def feed(self, piece: bytes) -> list[dict[str, Any]]:
        """The messages that are complete with this piece. What is no message breaks the inbox: it takes no more."""
        *lines, self.rest = (self.rest + piece).split(b"\n")
        found: list[dict[str, Any]] = []
        for line in lines:
            try:
                message = json.loads(line)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                self.broken = True
                return []
            found.append(message)
        self.broken = len(self.rest) > LONGEST
        return found


def address_text(secret: str, addresses: list[tuple[str, int]]) -> str:
    """The launcher's secret and addresses, as one environment variable's value."""
    return f"{secret}@{','.join(f'{host}:{port}' for host, port in addresses)}"


def read_address(text: str) -> tuple[str, list[tuple[str, int]]]:
    """The inverse of `address_text`."""
    secret, _, listed = text.partition("@")
    pairs = (entry.rpartition(":") for entry in listed.split(","))
    return secret, [(host, int(port)) for host, _, port in pairs]
