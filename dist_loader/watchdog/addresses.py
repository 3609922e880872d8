"""Where rank 0 can be reached: which of its addresses the others can reach is not known, so they try all of them."""

from __future__ import annotations

import socket

_MOST = 12


def local_addresses() -> list[str]:
    """The addresses of this host's interfaces, IPv4 first, without loopback and link-local ones."""
    import psutil  # comes with Horovod

    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    found = {
        address.address.partition("%")[0]: address.family == socket.AF_INET6
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if name in up and address.family in (socket.AF_INET, socket.AF_INET6)
    }
    usable = [at for at in found if not at.startswith(("127.", "169.254.", "fe80:", "::1"))]
    return sorted(usable, key=lambda at: (found[at], at))[:_MOST]


def listener() -> socket.socket:
    """A socket that listens on a free port of all addresses."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    return socket.create_server(("", 0), backlog=128)
