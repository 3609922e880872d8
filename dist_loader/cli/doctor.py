"""`dist-loader doctor`: says whether a job can run here, and what to do if not."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from dist_loader.cli.ranks import add_ranks, ranks
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
        **ranks(given),
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
    add_ranks(parser, launchers=("horovodrun", "mpirun", "srun"))
    add = parser.add_argument
    add("--data", metavar="DIR", help="a folder of class folders, or a saved index, that all hosts must have")
    add("--script", metavar="FILE", help="a file that all hosts must have")
    add("--json", action="store_true", help="print all that was found as JSON")
    return parser
