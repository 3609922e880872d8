"""`dist-loader doctor`: says whether a job can run here, and what to do if not."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from dist_loader.cli.launch import positive, words
from dist_loader.launching.choose import Request
from dist_loader.launching.sizing import Wish
from dist_loader.preflight.doctor import Findings, examine
from dist_loader.preflight.facts import to_json
from dist_loader.preflight.strategies import lines
from dist_loader.preflight.table import advice, table

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = "say whether a job can run on these hosts, and what to do if not"


def run(argv: Sequence[str]) -> int:
    """Examine; 0 if a job could run, else 1."""
    given = _parser().parse_args(argv)
    findings = examine(_request(given), os.environ)
    if given.json:
        print(json.dumps(_plain(findings), indent=2))
    else:
        _show(findings)
    return findings.code


def request(argv: Sequence[str]) -> Request:
    """What the command line asks for."""
    return _request(_parser().parse_args(argv))


def _request(given: argparse.Namespace) -> Request:
    return Request(
        script=(given.script,) if given.script else (),
        wish=Wish(given.np, oversubscribe=given.oversubscribe),
        hosts=given.hosts,
        hostfile=given.hostfile,
        launcher=given.launcher,
        control=given.control,
        interfaces=tuple(given.network_interfaces.split(",")) if given.network_interfaces else (),
        options=tuple(given.launcher_args),
        check_data=given.data,
    )


def _show(findings: Findings) -> None:
    print(table(findings.cells, color=sys.stdout.isatty()), end="")
    if findings.ways:
        print(f"\nOn this machine, as far as it can be told without trying:\n{chr(10).join(lines(findings.ways))}")
    for level, word in (("bad", "!"), ("warn", "?")):
        for number, line in enumerate(advice(findings.cells, level)):
            print(f"{'' if number or (level == 'warn' and findings.code) else chr(10)}{word} {line}")
    for line in findings.wrote:
        print(f"    {line}")
    sys.stdout.flush()


def _plain(findings: Findings) -> dict[str, object]:
    return {
        "ok": findings.code == 0,
        "cells": [vars(cell) for cell in findings.cells],
        "strategies": [vars(way) for way in findings.ways],
        "hosts": {
            host: {"problem": each.problem} if each.facts is None else to_json(each.facts)
            for host, each in findings.heard.items()
        },
        "wrote": list(findings.wrote),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dist-loader doctor",
        description="Looks at the hosts of a job as launch does before it starts one; on one machine, also at which "
        "strategies can work there. Exit code 1 if something must be mended.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group()
    control = parser.add_mutually_exclusive_group()
    add("-np", type=positive, metavar="N", help="ranks (default: the slots of all hosts, which are their GPUs)")
    where.add_argument("-H", dest="hosts", metavar="HOST:SLOTS,...", help="hosts, and how many ranks each takes")
    where.add_argument("--hostfile", metavar="FILE", help="the same, a host a line: hostA slots=2")
    add("--with", dest="launcher", choices=("horovodrun", "mpirun", "srun"), help="what would start the ranks")
    control.add_argument("--gloo", dest="control", action="store_const", const="gloo", help="ranks meet by Gloo")
    control.add_argument("--mpi", dest="control", action="store_const", const="mpi", help="ranks meet by MPI")
    add("--data", metavar="DIR", help="a folder of class folders, or a saved index, that all hosts must have")
    add("--script", metavar="FILE", help="a file that all hosts must have")
    add("--oversubscribe", action="store_true", help="more ranks than slots are wanted")
    add("--network-interfaces", metavar="NAME,...", help="such as eth0 (default: the one that leads to the hosts)")
    add("--launcher-args", metavar="TEXT", type=words, default=[], help="its options: --launcher-args='TEXT'")
    add("--json", action="store_true", help="print all that was found as JSON")
    return parser
