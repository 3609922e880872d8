"""The options that say which ranks a job has and what starts them: those of `launch` and of `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from dist_loader.cli.types import positive, words

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


class Ranks(TypedDict):
    """What of a `Request` these options say; the number of ranks is `np` and `oversubscribe`."""

    hosts: str | None
    hostfile: str | None
    launcher: str | None
    control: str | None
    interfaces: tuple[str, ...]
    options: tuple[str, ...]


def add_ranks(parser: argparse.ArgumentParser, launchers: Sequence[str]) -> None:
    """Add the options to a command's."""
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group()
    control = parser.add_mutually_exclusive_group()
    add("-np", type=positive, metavar="N", help="ranks (default: the slots of all hosts, which are their GPUs)")
    where.add_argument("-H", dest="hosts", metavar="HOST:SLOTS,...", help="hosts, and how many ranks each takes")
    where.add_argument("--hostfile", metavar="FILE", help="the same, a host a line: hostA slots=2")
    add("--with", dest="launcher", choices=launchers, help="what starts the ranks")
    control.add_argument("--gloo", dest="control", action="store_const", const="gloo", help="ranks meet by Gloo")
    control.add_argument("--mpi", dest="control", action="store_const", const="mpi", help="ranks meet by MPI")
    add("--oversubscribe", action="store_true", help="more ranks than slots are wanted")
    add("--network-interfaces", metavar="NAME,...", help="such as eth0 (default: the one that leads to the hosts)")
    add("--launcher-args", metavar="TEXT", type=words, default=[], help="its options: --launcher-args='TEXT'")


def ranks(given: argparse.Namespace) -> Ranks:
    """What was given for them."""
    return {
        "hosts": given.hosts,
        "hostfile": given.hostfile,
        "launcher": given.launcher,
        "control": given.control,
        "interfaces": tuple(given.network_interfaces.split(",")) if given.network_interfaces else (),
        "options": tuple(given.launcher_args),
    }
