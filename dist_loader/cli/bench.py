"""`dist-loader bench`: the loader beside its peers, on this machine."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

HELP = "measure the loader beside its peers (in a checkout)"


def run(argv: Sequence[str]) -> int:
    """Become `python -m benchmarks.loader`, with the same arguments.

    Raises:
        ConfigError: the benchmarks are not here.
    """
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - where `python -m` would look
    if find_spec("benchmarks") is None or find_spec("benchmarks.loader") is None:
        raise ConfigError(
            "the benchmarks are not part of the package: run this in the folder of a checkout, or `make bench`"
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks.loader", *argv])  # noqa: S606 - a list, no shell
