"""Rounds: every way in a process of its own, one running at a time while all others are halted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.loader.corpus import Corpus, cache_folder
from benchmarks.loader.ffmpeg import library_folder
from benchmarks.loader.others import Others
from benchmarks.loader.registry import Settings, Way

_PATIENCE = 300.0  # seconds for one answer


class NotMeasured(Exception):
    """Why a way has no figures."""


class Contestant:
    """The process of one way. It runs only while it is asked something.

    Args:
        way: what it runs.
        cores: numbers of the processor cores that it may use.
    """

    def __init__(self, way: Way, cores: Sequence[int]) -> None:
        self.way = way
        self.others: list[float] = []  # the part of the cores that other programs used, for each round
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

    def rate(self, corpus: Corpus, images: int) -> float:
        """Images per second of one epoch."""
        watched = Others(self._cores, self.process)
        rate = images / float(self.ask("round", kind=corpus.kind.name)["seconds"])
        self.others.append(watched.share())
        return rate

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


Rates = dict[str, list[float]]  # images per second by the name of the way, a number for each round
Reasons = dict[str, str]  # why there are none


def interleaved(
    contestants: dict[str, Contestant],
    corpus: Corpus,
    settings: Callable[[Way], Settings],
    rounds: int,
    say: Callable[[str], None],
) -> tuple[Rates, Reasons]:
    """So many rounds, in each of which every way reads the corpus once.

    Each round begins with another way, so that none always follows the same one.
    """
    images = len(corpus.paths())
    rates: Rates = {}
    reasons: Reasons = {}

    def attempt(name: str, action: Callable[[Contestant], None]) -> None:
        try:
            action(contestants[name])
        except NotMeasured as error:
            reasons[name] = str(error)
            rates.pop(name, None)
            say(f"{corpus.kind.name}: {name}: not measured: {error}")

    for name, contestant in contestants.items():
        attempt(name, lambda one: one.open(corpus, settings(one.way)))
        if name not in reasons:
            rates[name] = []
            say(f"{corpus.kind.name}: {contestant.way.name} is ready")
    for number in range(rounds):
        order = list(rates)
        for name in order[number % max(1, len(order)) :] + order[: number % max(1, len(order))]:
            attempt(name, lambda one: rates[one.way.name].append(one.rate(corpus, images)))
        middle = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
        say(f"{corpus.kind.name}: round {number + 1} of {rounds}: {middle}")
    return rates, reasons


def median_ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of one rate divided by another of the same round."""
    return statistics.median(value / other for value, other in zip(values, others, strict=True))
