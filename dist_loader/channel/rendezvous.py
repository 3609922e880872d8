"""Who waits for the others, written down with the server at which horovodrun has its ranks meet (Gloo)."""

from __future__ import annotations

import contextlib
import http.client
import os
from collections.abc import Mapping
from dataclasses import dataclass

_SCOPE = "dist_loader.channel"  # the server keeps values by scope and key (horovod/runner/http/http_server.py, 0.28.1)
_SECONDS = 5.0


@dataclass(frozen=True)
class Arrivals:
    """The calls that ranks have come to.

    Attributes:
        host: of the server.
        port: of the server.
        rank: of this process.
    """

    host: str
    port: int
    rank: int

    @classmethod
    def of_environment(cls, rank: int, env: Mapping[str, str] = os.environ) -> Arrivals | None:
        """From the variables that horovodrun sets; None where there is no such server."""
        host, port = env.get("HOROVOD_GLOO_RENDEZVOUS_ADDR"), env.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
        return cls(host, int(port), rank) if host and port.isdigit() else None

    def note(self, call: int) -> None:
        """This rank has come to a call. Where the server cannot be reached, nothing happens."""
        self._ask("PUT", self.rank, str(call))

    def absent(self, call: int, size: int) -> list[int]:
        """The ranks that have not noted this call; none if nothing can be known."""
        calls = [self._ask("GET", rank) for rank in range(size)]
        return [rank for rank, at in enumerate(calls) if at < call] if calls[self.rank] >= call else []

    def _ask(self, method: str, rank: int, body: str | None = None) -> int:
        """The call that a rank has come to, as far as it is known."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=_SECONDS)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request(method, f"/{_SCOPE}/{rank}", body)
            answer = connection.getresponse()
            text = answer.read(20)
            if answer.status == http.client.OK and text.isdigit():
                return int(text)
        return -1
