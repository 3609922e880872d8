"""Where ranks meet by Gloo that some launcher has started which knows nothing of Horovod: srun, or any mpirun.

horovodrun tells each of its ranks by `HOROVOD_*` variables who it is and where to find the others, and keeps a small
HTTP store in which they leave their addresses. Here `launch` does that, so that neither MPI nor ssh need work.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACE = ("rank", "size", "local_rank", "local_size", "cross_rank", "cross_size", "hostname")


def places(hosts: Mapping[int, str]) -> dict[int, dict[str, str]]:
    """What horovodrun would tell each rank of its place (`horovod/runner/gloo_run.py`).

    Args:
        hosts: of each rank, 0 to size - 1, the name of its host.

    Returns:
        The variables of each rank. Its local rank counts the ranks of its host; its cross rank those hosts, in the
        order of their first ranks, that have a rank of its local rank.
    """
    on: dict[str, list[int]] = {}
    for rank in sorted(hosts):
        on.setdefault(hosts[rank], []).append(rank)
    found = {}
    for host, ranks in on.items():
        for local, rank in enumerate(ranks):
            across = [other for other, its in on.items() if len(its) > local]
            values = (rank, len(hosts), local, len(ranks), across.index(host), len(across), host)
            found[rank] = {f"HOROVOD_{n.upper()}": str(value) for n, value in zip(_PLACE, values, strict=True)}
    return found


def way(address: str, port: int, interface: str) -> dict[str, str]:
    """The variables that say how to find the others: the store's address, and the network interface to use."""
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_GLOO_IFACE": interface,
    }


class Store:
    """Horovod's own HTTP store, as horovodrun keeps one for its ranks.

    Args:
        everywhere: other machines can reach it, too.

    Raises:
        ConfigError: Horovod is not installed.
    """

    def __init__(self, everywhere: bool) -> None:
        try:
            from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer
        except ImportError as error:
            raise ConfigError(f"to meet by Gloo, ranks need Horovod on this host, too: {error}") from error
        self._server = RendezvousHTTPServer(("" if everywhere else "127.0.0.1", 0), RendezvousHandler, 0)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def expect(self, told: Mapping[int, Mapping[str, str]]) -> None:
        """Learn who will come: the answer of `places`."""
        from horovod.runner.common.util.hosts import SlotInfo

        def slot(rank: int) -> SlotInfo:
            values = {name: told[rank][f"HOROVOD_{name.upper()}"] for name in _PLACE}
            return SlotInfo(**{name: value if name == "hostname" else int(value) for name, value in values.items()})

        self._server.init([slot(rank) for rank in sorted(told)])

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
