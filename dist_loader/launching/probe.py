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
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from dist_loader.launching.machine import count_gpus, interface_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


@dataclass(frozen=True)
class Said:
    """What a process left that was started to ask a host.

    Attributes:
        code: its exit code; None if it did not end in time.
        out: what it wrote to stdout.
        err: what it wrote to stderr.
        began: when it was started, in seconds since 1970 by this machine's clock.
        ended: when it was seen to have ended, likewise.
    """

    code: int | None
    out: str
    err: str
    began: float
    ended: float


def ask(hosts: Iterable[str], env: Mapping[str, str], bound: float = BOUND) -> dict[str, Answer]:
    """Ask hosts, in parallel, and for a bounded time."""
    commands = {host: over_ssh(host, env, ["dist_loader.launching.probe"], bound) for host in hosts}
    return {host: _answer(host, said, bound) for host, said in call(commands, env, bound).items()}


def over_ssh(host: str, env: Mapping[str, str], module: Sequence[str], bound: float) -> list[str]:
    """The command that runs a module of this package, with arguments, on another host."""
    # ssh makes one text of it for a shell over there: everything is quoted.
    paths = [f"{name}={env[name]}" for name in ("PYTHONPATH", "LD_LIBRARY_PATH") if env.get(name)]
    over_there = shlex.join(["env", *paths, sys.executable, "-m", *module])
    ssh = ["ssh", "-n", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={max(1, int(bound) // 2)}"]
    return [*ssh, "--", host, over_there]


def call(commands: Mapping[str, Sequence[str]], env: Mapping[str, str], bound: float) -> dict[str, Said]:
    """Run a command for each host, all at once, and for a bounded time."""
    deadline = time.monotonic() + bound
    running: dict[str, subprocess.Popen[bytes]] = {}
    began: dict[str, float] = {}
    ended: dict[str, float] = {}
    with ExitStack() as open_files:
        # Files, not pipes: what ssh leaves behind (ControlPersist) may hold a pipe open for minutes.
        written = {host: [open_files.enter_context(tempfile.TemporaryFile()) for _ in "oe"] for host in commands}
        for host, command in commands.items():
            began[host] = time.time()
            running[host] = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=written[host][0],
                stderr=written[host][1],
                start_new_session=True,  # Ctrl-C is for the launcher
            )
        while time.monotonic() < deadline and len(ended) < len(running):
            time.sleep(0.02)
            now = time.time()
            ended |= {h: now for h, process in running.items() if h not in ended and process.poll() is not None}
        said = {}
        for host, process in running.items():
            code = process.poll()
            if code is None:
                process.kill()
                process.wait()
            out, err = (_all_of(file) for file in written[host])
            said[host] = Said(code, out, err, began[host], ended.get(host, time.time()))
    return said


def _all_of(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def _answer(host: str, said: Said, bound: float) -> Answer:
    found = re.search(rf"^{_MARK}(.*)$", said.out, re.MULTILINE)
    if said.code != 0 or found is None:
        return Answer(problem=problem(host, said, bound))
    about = json.loads(found[1])
    return Answer(int(about["gpus"]), about["interface"], interface_of(about["client"]) if about["client"] else None)


def problem(host: str, said: Said, bound: float) -> str:
    """Why a host that did not say what it was asked for cannot be used."""
    if said.code is None:
        return f"{host} did not answer within {bound:g} s; try: ssh {host} true"
    last = next((line.strip() for line in reversed(said.err.splitlines()) if line.strip()), f"exit code {said.code}")
    if said.code == 255:  # ssh's own
        return f"{host} cannot be reached: {last}; it must work without a password: ssh {host} true"
    if "No module named dist_loader." in last.replace("'", ""):
        return f"{host} has another version of dist_loader for {sys.executable}: install the same there"
    if "dist_loader" in last:
        return f"{host} has no dist_loader for {sys.executable}: install it there, at the same path"
    return f"{host} cannot run {sys.executable}: {last}; the same environment must be at the same path"


def main() -> int:
    """Print what this machine has."""
    client, _, server, *_ = [*os.environ.get("SSH_CONNECTION", "").split(), "", "", ""]
    said = {"gpus": count_gpus(), "interface": interface_of(server) if server else None, "client": client or None}
    print(f"{_MARK}{json.dumps(said)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
