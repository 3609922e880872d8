"""An allreduce of one number over all ranks, started by the launcher and with the options of the job."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.launching.commands import rank_command
from dist_loader.launching.meeting import Store
from dist_loader.launching.messages import VARIABLE
from dist_loader.launching.supervise import supervise
from dist_loader.launching.switchboard import Switchboard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.launching.signals import Signals
    from dist_loader.launching.supervise import Ended

BOUND = 60.0  # seconds; a machine that is busy, or a network drive from which TensorFlow comes slowly, is no error
LINES = 8  # of what the launcher and the ranks wrote, shown where it fails


@dataclass(frozen=True)
class Tried:
    """How it went.

    Attributes:
        seconds: from the launcher's start to the end of the last rank.
        problem: what went wrong, in one line; None if the sum was right.
        wrote: the last lines of the launcher and the ranks, if something went wrong.
        stopped_by: the signal from outside that ended it.
    """

    seconds: float
    problem: str | None = None
    wrote: tuple[str, ...] = ()
    stopped_by: signal.Signals | None = None


def program(meets_on: Sequence[str] | None = None, bound: float = BOUND) -> tuple[str, ...]:
    """What each rank runs; with the answer of `Starter.meets_on`."""
    script = (sys.executable, "-m", "dist_loader.preflight.allreduce", f"{bound:g}")
    return rank_command(sys.executable, script, None, meets_on)


def attempt(
    command: Sequence[str],
    env: Mapping[str, str],
    signals: Signals,
    callers: Sequence[str],
    ranks: int,
    bound: float = BOUND,
    *,
    gloo: bool = False,
) -> Tried:
    """Run it.

    Args:
        command: starts `program` on all ranks.
        env: the environment of the launcher.
        signals: those that arrive at this process.
        callers: other machines that ranks are on.
        ranks: how many.
        bound: seconds until all of them have been started, and again until they are done.
        gloo: this program tells the ranks where they meet.

    Raises:
        ConfigError: the launcher cannot be started.
    """
    switchboard = Switchboard(callers, ranks, Store(everywhere=bool(callers)) if gloo else None)
    told = {"TF_CPP_MIN_LOG_LEVEL": "2", **env, VARIABLE: switchboard.address(), "DIST_LOADER_RESTARTS": "0"}
    folder = tempfile.mkdtemp(prefix="dist_loader-preflight-")
    said: list[str] = []
    with tempfile.TemporaryFile() as output:
        try:
            ended = supervise(
                command, told, switchboard, signals, folder, 1.0, said.append, starting=bound, output=output
            )
        except OSError as error:
            raise ConfigError(f"cannot start {command[0]}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        output.seek(0)
        lines = [line for line in output.read().decode(errors="replace").splitlines() if line.strip()]
    if ended.code == 0:
        return Tried(ended.seconds)
    what = _what(ended, bound) or next(iter(said), f"exit code {ended.code}")
    # What TensorFlow notes at its start is no news.
    wrote = [line for line in lines if "absl::InitializeLog" not in line and " port.cc:" not in line]
    # Where a rank has said something, that is the cause, and what the launcher makes of it is not.
    wrote = [line for line in wrote if re.match(r"\[\d+(,\d+)?\]<std|\d+: ", line)] or wrote
    return Tried(ended.seconds, what, tuple(wrote[-LINES:]), ended.stopped_by)


def _what(ended: Ended, bound: float) -> str | None:
    """How the first rank failed; None if none did."""
    if ended.failure is not None and ended.failure.code == 128 + signal.SIGALRM:
        return f"rank {ended.failure.rank} on {ended.failure.host} waited {bound:g} s for the others"
    return None if ended.failure is None else str(ended.failure)
