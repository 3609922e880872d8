"""`dist-loader COMMAND ...`: finds the command and runs it."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import dist_loader
from dist_loader.cli import bench, doctor, launch, scan
from dist_loader.errors import DistLoaderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is its own, 2 for what the user can mend, or 130 after Ctrl-C."""
    given = list(sys.argv[1:] if argv is None else argv)
    # The commands see their arguments as they were typed: argparse itself would take out a "--".
    commands: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
        "launch": (launch.HELP, launch.run),
        "scan": (scan.HELP, scan.run),
        "doctor": (doctor.HELP, doctor.run),
        "bench": (bench.HELP, bench.run),
    }
    parser = argparse.ArgumentParser(prog="dist-loader", description="Training on data that does not fit in memory.")
    parser.add_argument("--version", action="version", version=f"dist-loader {dist_loader.__version__}")
    what = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (tells, _) in commands.items():
        what.add_parser(name, help=tells, add_help=False)
    parser.parse_args(given[:1])
    try:
        return commands[given[0]][1](given[1:])
    except DistLoaderError as error:
        print(f"dist-loader: error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
