"""The bad samples of one sequence: each counted, written down and told of once, and the end of the budget."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dist_loader.bad_samples.file import BadSample, BadSampleFile
from dist_loader.bad_samples.policy import OnBad, budget_in_samples, checked_on_bad
from dist_loader.errors import ConfigError, SampleError, TooManyBadSamples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dist_loader.sequence.data import Samples

_log = logging.getLogger("dist_loader")

_MOST_WARNINGS = 20
# Then nothing can be opened, and it is not the file's fault.
OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE)


@dataclass
class _Told:
    """How many warnings were written, and whether one said that the file cannot be written to."""

    warnings: int = 0
    of_file: bool = False


class BadSamples:
    """What is known of a sequence's bad samples. Any thread may call its methods.

    Args:
        samples: all of them.
        on_bad: what becomes of a bad sample's place.
        budget: how many may be bad; see `budget_in_samples`.
        seed: of the shuffling; decides which sample takes a bad one's place.
        rank: of this process.
        file: where they are written down, for all ranks and runs; None: nowhere, and each rank counts its own.

    Raises:
        ConfigError: an unknown policy, a budget that makes no sense, a file that cannot be.
    """

    def __init__(
        self,
        samples: Samples,
        on_bad: OnBad,
        budget: float | None,
        seed: int,
        rank: int,
        file: str | os.PathLike[str] | None,
    ) -> None:
        self.on_bad = checked_on_bad(on_bad)
        self.budget = budget_in_samples(budget, len(samples))
        self.samples = samples
        self.seed = seed
        self._rank = rank
        self._own: dict[str, BadSample] = {}  # found by this process, by path
        self._unwritten: dict[str, BadSample] = {}
        self._file: BadSampleFile | None = None
        self._count = 0
        self._told = _Told()
        self._one_thread = threading.Lock()
        if file is not None:
            self.write_to(file)

    @property
    def file(self) -> Path | None:
        """Where bad samples are written down."""
        return None if self._file is None else self._file.path

    def write_to(self, file: str | os.PathLike[str]) -> None:
        """Write them to a file from now on, those that were found before included.

        Raises:
            ConfigError: there cannot be such a file.
        """
        path = Path(file).absolute()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise ConfigError(f"cannot write bad samples to {str(path)!r}: it is no file; choose another bad_file")
        except OSError as error:
            raise ConfigError(f"cannot write bad samples to {str(path)!r}: {error.strerror or error}") from None
        with self._one_thread:
            self._file = BadSampleFile(path)
            self._unwritten = dict(self._own)
            self._write()
            self._count = len(self._paths())

    def note(self, error: SampleError, epoch: int) -> None:
        """Count a sample that could not be read, and write it down if it is new.

        Raises:
            TooManyBadSamples: the budget is spent, and the policy is not to raise the error itself.
            SampleError: the error itself, if it is not the sample's fault.
        """
        if _is_of_the_process(error):
            raise error
        label = None if self.samples.labels is None else int(self.samples.labels[error.sample])
        bad = BadSample(error.path, error.reason, self._rank, epoch, error.sample, label, self.samples.fingerprint)
        with self._one_thread:
            if bad.path not in self._own:
                self._own[bad.path] = self._unwritten[bad.path] = bad
                for new in self._write():
                    self._warn(new)
                self._count = len(self._paths())
            count = self._count
        if self.on_bad != "raise" and count > self.budget:
            raise TooManyBadSamples(count, self.budget, error.path, error.reason, self._rank, self.file)

    def advice(self, error: SampleError) -> str:
        """What a user can do about an error that ends the training; "" if there is nothing to add."""
        if _is_of_the_process(error):
            return "let a process have more of them (ulimit -n)"
        return 'mend it, or go on without it with on_bad="replace" or "weight0"' if self.on_bad == "raise" else ""

    def marks(self) -> npt.NDArray[np.int64]:
        """A number for each bad sample that this process knows of, the same on every rank; int64, shape (n,)."""
        with self._one_thread:
            if self._file is not None:
                try:
                    self._write()
                    self._file.refresh()
                except OSError as error:
                    self._warn_of_file(error)
            paths = sorted(self._paths())
        return np.frombuffer(b"".join(map(_mark, paths)), np.int64)

    def unknown_to(self, marks: npt.NDArray[np.int64]) -> list[BadSample]:
        """What this process knows of, and another one with these `marks` does not."""
        known = {mark.tobytes() for mark in marks}
        with self._one_thread:
            paths = {path for path in self._paths() if _mark(path) not in known}
            found = {} if self._file is None else {bad.path: bad for bad in self._file.lines(paths)}
            return list(({path: self._own[path] for path in self._own.keys() & paths} | found).values())

    def take_in(self, found: Sequence[BadSample]) -> None:
        """Write down what other ranks know of, where all ranks do not share one file."""
        with self._one_thread:
            if self._file is not None and found:
                try:
                    self._file.append(found)
                except OSError as error:
                    self._warn_of_file(error)
                self._count = len(self._paths())

    def _paths(self) -> set[str]:
        return self._own.keys() | (set() if self._file is None else self._file.paths(self.samples.fingerprint))

    def _write(self) -> list[BadSample]:
        """Write down what was not yet; returns what no rank or run has written before."""
        found = list(self._unwritten.values())
        if self._file is not None and found:
            try:
                found = self._file.append(found)
            except OSError as error:
                self._warn_of_file(error)
                return found[-1:]
        self._unwritten = {}
        return found

    def _warn(self, bad: BadSample) -> None:
        if self.on_bad == "raise":
            return  # the error tells
        self._told.warnings += 1
        done = {"replace": "; another takes its place", "weight0": "; it does not count"}[self.on_bad]
        if self._told.warnings <= _MOST_WARNINGS:
            _log.warning("rank %d: cannot read sample %d, %r: %s%s", bad.rank, bad.sample, bad.path, bad.reason, done)
        elif self._told.warnings == _MOST_WARNINGS + 1:
            where = "given bad_file=..., a file would list them" if self.file is None else f"they are in {self.file}"
            _log.warning("rank %d: more samples cannot be read; no more is told of each, %s", bad.rank, where)

    def _warn_of_file(self, error: OSError) -> None:
        if not self._told.of_file:
            self._told.of_file = True
            what = error.strerror or error
            _log.warning("rank %d: cannot write bad samples to %s: %s; going on", self._rank, self.file, what)


def _is_of_the_process(error: SampleError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in OF_THE_PROCESS


def _mark(path: str) -> bytes:
    return hashlib.blake2b(os.fsencode(path), digest_size=8).digest()
