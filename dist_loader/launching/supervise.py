"""Runs the launcher's process from its start to an end that leaves nothing behind."""

from __future__ import annotations

import math
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from dist_loader.launching.keeper import Keeper, end_session
from dist_loader.launching.signals import STOPPING, Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dist_loader.launching.switchboard import RankEnd, Switchboard

SETTLING = 5.0  # seconds that the other ranks have to end by themselves when one has failed
LEAVING = 10.0  # seconds beyond it, or beyond the grace period, that the launcher has for clearing up
STARTING = 300.0  # seconds until every rank must have called
ONCE = 1.0  # seconds in which signals count as one: timeout(1) and batch systems send to a process and to its group
LAST_WORDS = 2.0  # seconds in which words of ranks may still arrive when the launcher's process has ended


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        code: the exit code that says so.
        failure: the rank that failed first; None if none did.
        stopped_by: the signal from outside that ended the job; None if none did.
        seconds: how long it ran.
        for_more: it was ended with SIGTERM by this program, to be started again on more hosts.
    """

    code: int
    failure: RankEnd | None
    stopped_by: signal.Signals | None
    seconds: float
    for_more: bool = False


def supervise(
    command: Sequence[str],
    env: Mapping[str, str],
    switchboard: Switchboard,
    signals: Signals,
    folder: str,
    grace: float,
    say: Callable[[str], None],
    more_hosts: Callable[[], bool] | None = None,
    ask_every: float = 60.0,
    starting: float = STARTING,
    output: IO[bytes] | None = None,
) -> Ended:
    """Start a job, hand signals on to its ranks, end all of it when one rank fails, and say how it ended.

    Args:
        command: the launcher with its arguments.
        env: its environment.
        switchboard: the connections to the ranks. Closed at the end.
        signals: those that arrive at this process.
        folder: for temporary files, removed with all that is in it at the end.
        grace: seconds that ranks have to end after SIGTERM, SIGINT or SIGHUP from outside.
        say: tells the user one line.
        more_hosts: whether the job could now have more ranks; the job is then ended as by SIGTERM. It may take seconds.
            None: it has all that it wants.
        ask_every: seconds between two calls of it.
        starting: seconds until every rank must have called.
        output: where the launcher and the ranks write to; None: where this process does.
    """
    keeper = Keeper(folder, gentle=SETTLING)
    process = None
    try:
        process = subprocess.Popen(
            command,
            env={**env, "TMPDIR": folder},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C reaches the ranks through this process alone, and once
        )
        keeper.watch(process.pid)
        ended = _follow(process, switchboard, signals, grace, say, more_hosts, ask_every, starting)
        _end_now(process, switchboard)
        return ended
    finally:
        switchboard.close()
        if process is not None:
            end_session(process.pid, gentle=SETTLING)
            process.wait()
        keeper.watch(0)
        keeper.done()


def _follow(
    process: subprocess.Popen[bytes],
    switchboard: Switchboard,
    signals: Signals,
    grace: float,
    say: Callable[[str], None],
    more_hosts: Callable[[], bool] | None,
    ask_every: float,
    starting: float,
) -> Ended:
    """Until the launcher's process and all ranks have ended, or must be ended."""
    started = time.monotonic()
    stopped_by: signal.Signals | None = None
    failure: RankEnd | None = None
    deadline = started + starting
    ended_at: float | None = None
    ask_at = started + ask_every
    for_more = False
    again_from = math.inf  # from when on another signal means at once
    with selectors.DefaultSelector() as selector:
        selector.register(signals, selectors.EVENT_READ)
        selector.register(switchboard, selectors.EVENT_READ)
        while True:
            selector.select(0.1 if ended_at or deadline < math.inf else 1.0)
            now = time.monotonic()
            for number in signals.arrived():
                if number not in STOPPING:
                    switchboard.send({"signal": int(number)})
                elif stopped_by is None:
                    stopped_by, deadline, again_from = number, now + grace, now + ONCE
                    say(f"{number.name}: handed on to the ranks, which have {grace:g} s to end; again to end at once")
                    switchboard.send({"signal": int(number)})
                    if not switchboard.joined:  # nothing to wait for
                        process.terminate()
                elif now > again_from:
                    say(f"{number.name}: again, so all ranks are ended at once")
                    return Ended(128 + stopped_by, None, stopped_by, now - started)
            switchboard.listen()
            if failure is None and stopped_by is None:
                if switchboard.complete and deadline == started + starting:
                    deadline = math.inf
                if more_hosts and not for_more and switchboard.complete and now > ask_at and ended_at is None:
                    ask_at = now + ask_every
                    if more_hosts():
                        say(f"more hosts answer again, so the ranks have {grace:g} s to write a checkpoint")
                        for_more, deadline = True, now + grace
                        switchboard.send({"signal": int(signal.SIGTERM)})
                if not for_more and (failure := switchboard.first_failure(now)):
                    switchboard.send({"end": SETTLING})
                    deadline = now + SETTLING + LEAVING
            if ended_at is None and process.poll() is not None:
                ended_at = now
            over = ended_at is not None and (not switchboard.running() or now > ended_at + LAST_WORDS)
            if not over and ended_at is None and now > deadline:
                over = True
                if failure or stopped_by or for_more:
                    say(f"not ended in time, so ended now: {switchboard.who_is_left() or 'the launcher'}")
            if over and for_more and stopped_by is None:
                if switchboard.ended_well():  # it was just done
                    return Ended(0, None, None, now - started)
                return Ended(128 + signal.SIGTERM, None, None, now - started, for_more=True)
            if over:
                # Ranks whose launcher was killed were ended for that.
                killed = (process.poll() or 0) < 0 and failure is None
                failure = None if killed else failure or switchboard.first_failure(now + LAST_WORDS)
                return _ended(process, switchboard, failure, stopped_by, now - started, starting, say)


def _end_now(process: subprocess.Popen[bytes], switchboard: Switchboard) -> None:
    """Have all ranks ended, and give the launcher's process the moment that it needs to notice."""
    switchboard.send({"end": 0})
    deadline = time.monotonic() + LAST_WORDS
    while (switchboard.running() or process.poll() is None) and time.monotonic() < deadline:
        time.sleep(0.02)
        switchboard.listen()


def _ended(
    process: subprocess.Popen[bytes],
    switchboard: Switchboard,
    failure: RankEnd | None,
    stopped_by: signal.Signals | None,
    seconds: float,
    starting: float,
    say: Callable[[str], None],
) -> Ended:
    if process.poll() is None and stopped_by is None and failure is None:
        say(f"only {switchboard.joined} ranks were started within {starting:g} s")
        return Ended(1, None, None, seconds)
    if stopped_by is not None:
        return Ended(128 + stopped_by, None, stopped_by, seconds)
    if failure is not None:
        return Ended(failure.code, failure, None, seconds)
    code = process.poll() or 0
    if code < 0:
        say(f"the launcher itself was ended by {signal.Signals(-code).name}")
        return Ended(128 - code, None, None, seconds)
    if code:
        how = "before any rank had started" if not switchboard.joined else "though no rank had failed"
        say(f"the launcher ended with exit code {code} {how}; what it says is above")
    elif not switchboard.ended_well():
        say(f"the launcher ended, and only {switchboard.joined} ranks were ever heard of")
        code = 1
    return Ended(code, None, None, seconds)
