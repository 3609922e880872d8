"""`dist-loader launch`: starts a training script on many GPUs and hosts."""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from dist_loader.launching.choose import Request
from dist_loader.launching.launch import launch
from dist_loader.launching.sizing import Wish

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = "start a training script on many GPUs and hosts"


def run(argv: Sequence[str]) -> int:
    """Launch a job; its exit code."""
    return launch(request(argv))


def request(argv: Sequence[str]) -> Request:
    """What the command line asks for. All behind SCRIPT is the script's own, unread and unchanged."""
    given = _parser().parse_args(argv)
    script = given.script[1:] if given.script[:1] == ["--"] else given.script
    if not script:
        _parser().error("SCRIPT is missing")
    return Request(
        script=tuple(script),
        wish=Wish(given.np, given.min_np, given.np_divides, given.oversubscribe),
        hosts=given.hosts,
        hostfile=given.hostfile,
        launcher=given.launcher,
        control=given.control,
        interfaces=tuple(given.network_interfaces.split(",")) if given.network_interfaces else (),
        exports=tuple(given.exports),
        options=tuple(given.launcher_args),
        log_dir=given.log_dir,
        grace=given.grace,
        restarts=given.restarts,
        dry_run=given.dry_run,
        preflight=not given.no_preflight,
        check_data=given.check_data,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dist-loader launch",
        usage="dist-loader launch [OPTION]... SCRIPT [ARG]...",
        description="Runs SCRIPT (a .py file, or a program) on many ranks; exits with the code of the first to fail.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group()
    control = parser.add_mutually_exclusive_group()
    add("-np", type=positive, metavar="N", help="ranks (default: the slots of all hosts, which are their GPUs)")
    where.add_argument("-H", dest="hosts", metavar="HOST:SLOTS,...", help="hosts, and how many ranks each takes")
    where.add_argument("--hostfile", metavar="FILE", help="the same, a host a line: hostA slots=2")
    add("--with", dest="launcher", choices=("horovodrun", "mpirun", "srun", "local"), help="what starts the ranks")
    control.add_argument("--gloo", dest="control", action="store_const", const="gloo", help="ranks meet by Gloo")
    control.add_argument("--mpi", dest="control", action="store_const", const="mpi", help="ranks meet by MPI")
    add("--dry-run", action="store_true", help="print the command, and start nothing")
    add("--no-preflight", action="store_true", help="do not look at the hosts before the start")
    add("--check-data", metavar="DIR", help="see before the start that all hosts have the same data there")
    add("--oversubscribe", action="store_true", help="more ranks than slots are wanted")
    add("--network-interfaces", metavar="NAME,...", help="such as eth0 (default: the one that leads to the hosts)")
    add("-x", dest="exports", metavar="NAME", action="append", default=[], help="a variable for mpirun to hand on")
    add(
        "--launcher-args",
        metavar="TEXT",
        type=words,
        default=[],
        help="its options: --launcher-args='TEXT'",
    )
    add("--log-dir", metavar="DIR", help="ranks write to DIR/rank-N.log instead of the terminal")
    add("--grace", type=seconds, default=30.0, metavar="S", help="seconds between SIGTERM and the end (default 30)")
    add("--restarts", type=count, default=0, metavar="N", help="start again after a failure, so many times in a row")
    add("--min-np", type=positive, metavar="N", help="fewest ranks for a restart (default: no fewer than at first)")
    add("--np-divides", type=positive, metavar="B", help="the ranks must divide this, such as the global batch")
    add(
        "script",
        nargs=argparse.REMAINDER,
        metavar="SCRIPT [ARG]...",
        help="what to run; its arguments stay as they are",
    )
    return parser


def positive(text: str) -> int:
    """A whole number of at least 1."""
    number = count(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return int(text)


def seconds(text: str) -> float:
    """A duration of at least 0 seconds."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number


def words(text: str) -> list[str]:
    """The words of a text with quotes."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
