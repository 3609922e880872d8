"""How many ranks, on which hosts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.launching.hosts import Host, Hosts


@dataclass(frozen=True)
class Wish:
    """What the user asked for.

    Attributes:
        ranks: -np; None: as many as the hosts have slots.
        at_least: --min-np, the fewest ranks that a restart goes on with; None: no fewer than at first.
        divides: --np-divides, a number that the ranks must divide, such as the global batch; None: any number will do.
        oversubscribe: more ranks than slots are wanted.
        unfit: numbers of ranks that the script was found not to run with, after others.
    """

    ranks: int | None = None
    at_least: int | None = None
    divides: int | None = None
    oversubscribe: bool = False
    unfit: frozenset[int] = frozenset()


def with_slots(hosts: Hosts, gpus: Mapping[str, int], cores: int, ranks: int | None) -> tuple[Host, ...]:
    """The hosts with the slots that nobody named: one for each GPU, else one.

    This machine alone, without GPUs, takes a rank for each core if it is asked for several.

    Args:
        hosts: as they were found.
        gpus: of each host without slots.
        cores: of this machine.
        ranks: how many are wanted; None where nobody said.
    """
    alone = hosts.source == "this machine"
    otherwise = max(1, cores) if alone and ranks is not None else 1
    return tuple(
        host if host.slots is not None else replace(host, slots=gpus.get(host.name, 0) or otherwise)
        for host in hosts.hosts
    )


def first_size(hosts: Sequence[Host], wish: Wish) -> int:
    """How many ranks a job starts with.

    Raises:
        ConfigError: they do not fit on the hosts, or the wishes contradict each other.
    """
    slots = _slots(hosts)
    ranks = wish.ranks if wish.ranks is not None else slots
    if ranks > slots and not wish.oversubscribe:
        where = ", ".join(map(str, hosts))
        raise ConfigError(
            f"{ranks} ranks do not fit into {slots} slots ({where}); ask for fewer with -np, or add --oversubscribe, "
            f"if ranks are to share a device"
        )
    if wish.divides is not None and wish.divides % ranks:
        raise ConfigError(f"--np-divides {wish.divides} is not divided by the {ranks} ranks")
    if wish.at_least is not None and wish.at_least > ranks:
        raise ConfigError(f"--min-np {wish.at_least} is more than the {ranks} ranks of the job")
    return ranks


def next_size(hosts: Sequence[Host], first: int, wish: Wish) -> int | None:
    """How many ranks a job goes on with on the hosts that are left: as many as possible; None if that is too few.

    Args:
        hosts: that answer.
        first: ranks at the start, which are never exceeded.
        wish: what the user asked for.
    """
    most = first if wish.oversubscribe and hosts else min(first, _slots(hosts))
    fewest = first if wish.at_least is None else wish.at_least
    for ranks in range(most, max(0, fewest - 1), -1):
        if ranks not in wish.unfit and (not wish.divides or wish.divides % ranks == 0):
            return ranks
    return None


def pause(failures: int) -> float:
    """Seconds before a job is started again after so many failures in a row: 1, 2, 4, ... up to 60."""
    return float(min(60, 2 ** min(failures - 1, 6)))


def _slots(hosts: Sequence[Host]) -> int:
    return sum(host.slots or 1 for host in hosts)
