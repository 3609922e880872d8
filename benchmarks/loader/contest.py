"""Rounds: every way in a process of its own, one running at a time while all others are halted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.loader.cores import Watch
from benchmarks.loader.corpus import Corpus, cache_folder
from benchmarks.loader.ffmpeg import library_folder
from benchmarks.loader.registry import Settings, Way

_PATIENCE = 300.0  # seconds for one answer
_QUIET = 0.05  # an epoch during which other programs took more of the cores is repeated
_ATTEMPTS = 4  # and then the one that they disturbed least counts, however fast it was


class NotMeasured(Exception):
    """Why a way has no figures."""


@dataclass(frozen=True)
class Round:
    """One epoch of one way.

    Args:
        rate: images per second.
        cost: milliseconds of processor time per image, of all its threads and processes together.
        others: the part of the cores' time, from 0 to 1, that other programs took.
    """

    rate: float
    cost: float
    others: float


class Contestant:
    """The process of one way. It runs only while it is asked something.

    Args:
        way: what it runs.
        cores: numbers of the processor cores that it may use.
    """

    def __init__(self, way: Way, cores: Sequence[int]) -> None:
        self.way = way
        self._cores = cores
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `end`)
        ours, theirs = Pipe()
        self._connection: Connection = ours
        command = [sys.executable, "-m", "benchmarks.loader.worker", str(theirs.fileno()), way.module]
        self._process = subprocess.Popen(
            [*command, ",".join(map(str, cores))],
            pass_fds=[theirs.fileno()],
            env=os.environ | _library_path(way),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )
        theirs.close()

    @property
    def process(self) -> int:
        """Its process identifier."""
        return self._process.pid

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Let it run until it has answered.

        Raises:
            NotMeasured: it answered with an error, ended, or took too long.
        """
        self._signal(signal.SIGCONT)
        try:
            self._connection.send_bytes(json.dumps({"do": do, **what}).encode())
            if not self._connection.poll(_PATIENCE):
                raise NotMeasured(f"no answer within {_PATIENCE:g} s")
            answer: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            code, last_words = self._process.wait(10), self._last_words()
            raise NotMeasured(f"its process ended with code {code}: {last_words}") from error
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise NotMeasured(answer["error"])
        return answer

    def open(self, corpus: Corpus, settings: Settings) -> None:
        """Get ready for a corpus, which takes an epoch."""
        self.ask("open", kind=corpus.kind.name, folder=str(corpus.folder), settings=settings)

    def round(self, corpus: Corpus, images: int) -> Round:
        """One epoch; the one that others disturbed least, if it takes more than one to find a quiet one."""
        rounds = []
        for _ in range(_ATTEMPTS):
            watch = Watch(self._cores, self.process)
            seconds = float(self.ask("round", kind=corpus.kind.name)["seconds"])
            use = watch.use()
            rounds.append(Round(images / seconds, 1000 * use.seconds / images, use.others))
            if use.others <= _QUIET:
                break
        return min(rounds, key=lambda one: one.others)

    def end(self) -> None:
        """Stop the process and all that it has started."""
        self._connection.close()
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "no message"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(self._process.pid) == self._process.pid:
                os.killpg(self._process.pid, number)


def _library_path(way: Way) -> dict[str, str]:
    folder = library_folder(cache_folder() / "ffmpeg") if way.ffmpeg else None
    if folder is None:
        return {}
    return {"LD_LIBRARY_PATH": ":".join(filter(None, [str(folder), os.environ.get("LD_LIBRARY_PATH")]))}


Rounds = dict[str, list[Round]]  # by the name of the way
Reasons = dict[str, str]  # why there are none


def interleaved(
    contestants: dict[str, Contestant],
    corpus: Corpus,
    settings: Callable[[Way], Settings],
    rounds: int,
    say: Callable[[str], None],
) -> tuple[Rounds, Reasons]:
    """So many rounds, in each of which every way reads the corpus once.

    Each round begins with another way, so that none always follows the same one.
    """
    images = len(corpus.paths())
    measured: Rounds = {}
    reasons: Reasons = {}

    def attempt(name: str, action: Callable[[Contestant], None]) -> None:
        try:
            action(contestants[name])
        except NotMeasured as error:
            reasons[name] = str(error)
            measured.pop(name, None)
            say(f"{corpus.kind.name}: {name}: not measured: {error}")

    for name, contestant in contestants.items():
        attempt(name, lambda one: one.open(corpus, settings(one.way)))
        if name not in reasons:
            measured[name] = []
            say(f"{corpus.kind.name}: {contestant.way.name} is ready")
    for number in range(rounds):
        order = list(measured)
        for name in order[number % max(1, len(order)) :] + order[: number % max(1, len(order))]:
            attempt(name, lambda one: measured[one.way.name].append(one.round(corpus, images)))
        middle = ", ".join(f"{name} {values[-1].rate:.0f}" for name, values in measured.items())
        say(f"{corpus.kind.name}: round {number + 1} of {rounds}: {middle}")
    return measured, reasons
