"""`dist-loader launch`: starts a training script on many GPUs and hosts."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dist_loader.cli.ranks import add_ranks, ranks
from dist_loader.cli.types import count, positive, seconds
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
        **ranks(given),
        exports=tuple(given.exports),
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
    add_ranks(parser, launchers=("horovodrun", "mpirun", "srun", "local"))
    add("--dry-run", action="store_true", help="print the command, and start nothing")
    add("--no-preflight", action="store_true", help="do not look at the hosts before the start")
    add("--check-data", metavar="DIR", help="see before the start that all hosts have the same data there")
    add("-x", dest="exports", metavar="NAME", action="append", default=[], help="a variable for mpirun to hand on")
    add("--log-dir", metavar="DIR", help="ranks write to DIR/rank-N.log instead of the terminal")
    add("--grace", type=seconds, default=30.0, metavar="S", help="seconds between SIGTERM and the end (default 30)")
    add("--restarts", type=count, default=0, metavar="N", help="start again after a failure, so many times in a row")
    add("--min-np", type=positive, metavar="N", help="fewest ranks for a restart (default: no fewer than at first)")
    add("--np-divides", type=positive, metavar="B", help="the ranks must divide this: global batch / device batch")
    add(
        "script",
        nargs=argparse.REMAINDER,
        metavar="SCRIPT [ARG]...",
        help="what to run; its arguments stay as they are",
    )
    return parser
