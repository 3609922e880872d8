"""Launches a job: finds hosts and launcher, builds the command, starts it, and starts it again after a failure."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError
from dist_loader.launching.choose import Request, what_to_run
from dist_loader.launching.commands import rank_command
from dist_loader.launching.hosts import find_hosts
from dist_loader.launching.machine import count_cores, count_gpus, is_here
from dist_loader.launching.meeting import Store
from dist_loader.launching.messages import VARIABLE
from dist_loader.launching.probe import Answer, ask
from dist_loader.launching.signals import Signals
from dist_loader.launching.sizing import Wish, first_size, next_size, pause, with_slots
from dist_loader.launching.starter import Starter
from dist_loader.launching.supervise import Ended, supervise
from dist_loader.launching.switchboard import Switchboard
from dist_loader.preflight.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dist_loader.launching.commands import Launcher
    from dist_loader.launching.hosts import Host
    from dist_loader.launching.switchboard import RankEnd

GOOD_RUN = 600.0  # seconds after which a failure counts as the first again
USAGE = 2  # the exit code of what a restart cannot mend


def launch(request: Request, env: Mapping[str, str] = os.environ) -> int:
    """Run a job to its end; its exit code.

    Raises:
        ConfigError: it cannot be run as it was asked for.
    """
    hosts = find_hosts(request.hosts, request.hostfile, env)
    starter = Starter.chosen(request, hosts, env)
    launcher = starter.launcher
    script = rank_command(sys.executable, what_to_run(request.script, env), request.log_dir, starter.meets_on)
    away = [host.name for host in hosts.hosts if not is_here(host.name)]
    # A batch system knows its hosts, and need not allow ssh to them.
    to_ask = [] if hosts.allocated or launcher in ("local", "srun") else away
    gpus = {host.name: count_gpus(env) for host in hosts.hosts if host.slots is None and host.name not in to_ask}

    if request.dry_run:
        if any(host.slots is None and host.name in to_ask for host in hosts.hosts):
            raise ConfigError("--dry-run asks no host for its GPUs; give each its slots, as in -H hostA:2,hostB:2")
        sized = with_slots(hosts, gpus, count_cores(), request.wish.ranks)
        ranks = _size(launcher, sized, request.wish)
        print(shlex.join(starter.command(script, ranks, sized, request.interfaces, told=())), flush=True)
        return 0

    with Signals() as signals:
        gate = Gate(starter, hosts.hosts, away, to_ask, say) if request.preflight else None
        answers = gate.answers() if gate else ask(to_ask, env)
        if problems := [answer.problem for answer in answers.values() if answer.problem]:
            raise ConfigError("; ".join(problems))
        gpus |= {name: answer.gpus for name, answer in answers.items()}
        sized = with_slots(hosts, gpus, count_cores(), request.wish.ranks)
        start = _Start(sized, _size(launcher, sized, request.wish), answers)
        first, failures, restarts, wish = start.ranks, 0, 0, request.wish
        interfaces = request.interfaces or common_interface(answers)
        if gate and (stopped_by := gate.check(sized, first, interfaces, signals)):
            return 128 + stopped_by
        while True:
            interfaces = request.interfaces or common_interface(start.answers)
            # Shown without what only this process can tell the ranks, so that it can be copied.
            say(f"$ {shlex.join(starter.command(script, start.ranks, start.hosts, interfaces, told=()))}")
            arguments = starter.command(script, start.ranks, start.hosts, interfaces)
            callers = [host.name for host in start.hosts if host.name in away]
            told = {**env, "DIST_LOADER_RESTARTS": str(restarts)}
            more = partial(_could_grow, start, sized, first, wish, env) if start.ranks < first else None
            ended = _run(arguments, told, request, signals, callers, start, more, gloo=starter.gloo)
            if ended.code == USAGE and start.ranks < first and ended.stopped_by is None:
                # It ran with more: what it cannot is to divide its batches among so many.
                wish = replace(wish, unfit=wish.unfit | {start.ranks})
                fewer = next_size(start.hosts, first, wish)
                if fewer is None:
                    return ended.code
                say(f"from {start.ranks} to {fewer} ranks, for it does not run with {start.ranks} (exit code {USAGE})")
                start = replace(start, ranks=fewer)
                restarts += 1
                continue
            if not ended.for_more:
                failures = 1 if ended.seconds >= GOOD_RUN else failures + 1
            if not may_go_on(ended, failures, request.restarts, hosts.allocated):
                return ended.code
            again = _wait(request.restarts, wish, sized, first, failures, signals, lambda: ask(to_ask, env))
            if isinstance(again, int):
                return again or ended.code
            if again.ranks != start.ranks:
                say(f"from {start.ranks} to {again.ranks} ranks")
            start, failures = again, again.failures
            restarts += 1


@dataclass(frozen=True)
class _Start:
    """Where a job is started, the first time or again.

    Attributes:
        hosts: that answer.
        ranks: how many it has.
        answers: of the hosts that were asked.
        failures: in a row so far.
    """

    hosts: Sequence[Host]
    ranks: int
    answers: Mapping[str, Answer]
    failures: int = 0


def _wait(
    most: int,
    wish: Wish,
    hosts: Sequence[Host],
    first: int,
    failures: int,
    signals: Signals,
    ask_hosts: Callable[[], Mapping[str, Answer]],
) -> _Start | int:
    """Wait until a job can be started again: where, or an exit code when it cannot be (0: that of the job)."""
    while failures <= most:
        seconds = pause(failures)
        say(f"starting again in {seconds:g} s, {failures} of {most}")
        if stopped_by := signals.sleep(seconds):
            return 128 + stopped_by
        answers = ask_hosts()
        for answer in answers.values():
            if answer.problem:
                say(answer.problem)
        left = [host for host in hosts if not answers.get(host.name, Answer()).problem]
        size = next_size(left, first, wish)
        if size is not None:
            return _Start(left, size, answers, failures)
        slots = sum(host.slots or 1 for host in left)
        say(f"{slots} slots answer, too few for the {wish.at_least or first} ranks that must be")
        failures += 1
    return 0


def _could_grow(start: _Start, hosts: Sequence[Host], first: int, wish: Wish, env: Mapping[str, str]) -> bool:
    """Whether hosts that were missed answer again, and the job can have more ranks with them."""
    missed = [host for host in hosts if host not in start.hosts]
    answers = ask([host.name for host in missed], env, bound=3.0)  # signals to the job wait for it
    back = [host for host in missed if not answers[host.name].problem]
    return (next_size([*start.hosts, *back], first, wish) or 0) > start.ranks


def may_go_on(ended: Ended, failures: int, restarts: int, allocated: bool) -> bool:
    """Whether a job is started again. Not after success, a signal from outside, or what is the user's to mend.

    A batch system that takes its hosts back sends SIGTERM to the ranks themselves.
    """
    final = (0, USAGE, 128 + signal.SIGTERM) if allocated else (0, USAGE)
    if ended.for_more:
        return True
    return ended.code not in final and ended.stopped_by is None and failures <= restarts


def say(line: str) -> None:
    """Tell the user."""
    print(f"dist-loader: {line}", file=sys.stderr, flush=True)


def _run(
    arguments: Sequence[str],
    env: Mapping[str, str],
    request: Request,
    signals: Signals,
    callers: Sequence[str],
    start: _Start,
    more_hosts: Callable[[], bool] | None,
    *,
    gloo: bool,
) -> Ended:
    switchboard = Switchboard(callers, start.ranks, Store(everywhere=bool(callers)) if gloo else None)
    # horovodrun itself imports TensorFlow, whose start-up notes are no news.
    told = {"TF_CPP_MIN_LOG_LEVEL": "2", **env, VARIABLE: switchboard.address()}
    folder = tempfile.mkdtemp(prefix="dist_loader-launch-")
    try:
        ended = supervise(arguments, told, switchboard, signals, folder, request.grace, say, more_hosts)
    except OSError as error:  # arguments that are too long, for one
        raise ConfigError(f"cannot start {arguments[0]}: {error.strerror or error}") from error
    if ended.failure is not None:  # the last word, behind what the launcher has to say about it
        say(f"{ended.failure}, the first to fail{_log_of(ended.failure, request)}")
    return ended


def _log_of(failure: RankEnd, request: Request) -> str:
    if request.log_dir is None:
        return ""
    return f"; what it wrote is in {Path(request.log_dir) / f'rank-{failure.rank}.log'}"


def _size(launcher: Launcher, hosts: Sequence[Host], wish: Wish) -> int:
    return 1 if launcher == "local" else first_size(hosts, wish)


def common_interface(answers: Mapping[str, Answer]) -> tuple[str, ...]:
    """The interface that leads from every host to every other, if it has the same name on all of them."""
    names = {name for answer in answers.values() if not answer.problem for name in (answer.interface, answer.here)}
    return tuple(name for name in names if name) if len(names) == 1 else ()
