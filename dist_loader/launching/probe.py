"""Asks hosts, all at once and over ssh, whether they answer, what they have, and how they are reached.

`python -m dist_loader.launching.probe` is what runs there; it prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_loader.launching.machine import count_gpus, interface_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BOUND = 10.0  # seconds for all hosts together
_MARK = "dist_loader-probe:"


@dataclass(frozen=True)
class Answer:
    """What a host said.

    Attributes:
        gpus: how many it has.
        interface: the network interface by which it is reached from here; None if that is not known.
        here: the network interface of this machine on that way.
        problem: why it cannot be used, in one line; None if it can.
    """

    gpus: int = 0
    interface: str | None = None
    here: str | None = None
    problem: str | None = None


def ask(hosts: Iterable[str], env: Mapping[str, str], bound: float = BOUND) -> dict[str, Answer]:
    """Ask hosts, in parallel, and for a bounded time."""
    # ssh makes one text of it for a shell over there: everything is quoted.
    path = [f"PYTHONPATH={env['PYTHONPATH']}"] if env.get("PYTHONPATH") else []
    over_there = shlex.join(["env", *path, sys.executable, "-m", "dist_loader.launching.probe"])
    ssh = ["ssh", "-n", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, int(bound) // 2)}"]
    deadline = time.monotonic() + bound
    running = {
        host: subprocess.Popen(
            [*ssh, "--", host, over_there],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for the launcher
        )
        for host in hosts
    }
    while time.monotonic() < deadline and any(process.poll() is None for process in running.values()):
        time.sleep(0.02)
    return {host: _heard(host, process, bound) for host, process in running.items()}


def _heard(host: str, process: subprocess.Popen[str], bound: float) -> Answer:
    if process.poll() is None:
        process.kill()
        process.communicate()
        return Answer(problem=f"{host} did not answer within {bound:g} s; try: ssh {host} true")
    out, err = process.communicate()
    return read(host, process.returncode, out, err)


def read(host: str, code: int, out: str, err: str) -> Answer:
    """What ssh's exit code and output say about a host."""
    found = re.search(rf"^{_MARK}(.*)$", out, re.MULTILINE)
    if code == 0 and found:
        said = json.loads(found[1])
        return Answer(int(said["gpus"]), said["interface"], interface_of(said["client"]) if said["client"] else None)
    last = next((line.strip() for line in reversed(err.splitlines()) if line.strip()), f"exit code {code}")
    if code == 255:  # ssh's own
        return Answer(problem=f"{host} cannot be reached: {last}; it must work without a password: ssh {host} true")
    if "dist_loader" in last:
        return Answer(problem=f"{host} has no dist_loader for {sys.executable}: install it there, at the same path")
    return Answer(problem=f"{host} cannot run {sys.executable}: {last}; the same environment must be at the same path")


def main() -> int:
    """Print what this machine has."""
    client, _, server, *_ = [*os.environ.get("SSH_CONNECTION", "").split(), "", "", ""]
    said = {"gpus": count_gpus(), "interface": interface_of(server) if server else None, "client": client or None}
    print(f"{_MARK}{json.dumps(said)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
