"""The file of bad samples: one line of JSON for each, appended by any rank of any run, never twice."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dist_loader.lock import took_lock

_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read.

    Attributes:
        path: where it was read from, without credentials.
        reason: what went wrong.
        rank: which rank found out.
        epoch: in which epoch it was to be read.
        sample: its number in the index.
        label: as it is in the index; None if it has none.
        index: the index's fingerprint.
    """

    path: str
    reason: str
    rank: int
    epoch: int
    sample: int
    label: int | None
    index: str


class BadSampleFile:
    """A file that all ranks append to, one at a time (flock), each after it has read what the others wrote.

    A line is written by one call. If a kill or a full disk tears it all the same, the next one who appends mends the
    file. Lines that make no sense are left alone. For one thread at a time.

    Args:
        path: of the file, which may be there or not, in a folder that is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[str] = set()  # paths of all lines read so far
        self._of_index: dict[str, set[str]] = {}  # the same, by index
        self._read_to = 0  # always the end of a line
        self._file: tuple[int, int] | None = None  # device and inode of what was read

    def append(self, found: Sequence[BadSample]) -> list[BadSample]:
        """Write down those that are not yet in the file; returns them.

        Raises:
            OSError: the file cannot be written to, or another process has held its lock for 10 s.
        """
        with self._locked() as fd:
            torn = self._take_in(fd)
            if torn:
                self._mend(fd, torn)
            new = list({bad.path: bad for bad in found if bad.path not in self._known}.values())
            text = "".join(json.dumps(asdict(bad)) + "\n" for bad in new).encode()
            if text and os.write(fd, text) != len(text):
                os.ftruncate(fd, self._read_to)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._read_to += len(text)
            for bad in new:
                self._remember(bad.path, bad.index)
        return new

    def refresh(self) -> None:
        """Read what others have appended since."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            self._take_in(fd)
        finally:
            os.close(fd)

    def paths(self, index: str) -> set[str]:
        """The bad samples of an index, in the lines read so far."""
        return self._of_index.get(index, set())

    def lines(self, wanted: Collection[str]) -> list[BadSample]:
        """The bad samples of some paths, in the lines read so far."""
        found: dict[str, BadSample] = {}
        if wanted and self._read_to:
            with suppress(FileNotFoundError), self.path.open("rb") as file:
                for line in file.read(self._read_to).split(b"\n"):
                    parsed = _parsed(line)
                    if parsed is not None and parsed[0] in wanted:
                        with suppress(TypeError):  # other fields than ours
                            found.setdefault(parsed[0], BadSample(**json.loads(line)))
        return list(found.values())

    def _remember(self, path: str, index: str) -> None:
        if path not in self._known:
            self._known.add(path)
            self._of_index.setdefault(index, set()).add(path)

    def _take_in(self, fd: int) -> bytes:
        """Read the lines that are new; returns what follows the last whole one."""
        status = os.fstat(fd)
        if self._file != (status.st_dev, status.st_ino) or status.st_size < self._read_to:
            self._file, self._read_to = (status.st_dev, status.st_ino), 0
            self._known, self._of_index = set(), {}
        text = b""
        while part := os.pread(fd, 1 << 20, self._read_to + len(text)):
            text += part
        whole, newline, torn = text.rpartition(b"\n")
        for line in whole.split(b"\n"):
            bad = _parsed(line)
            if bad is not None:
                self._remember(*bad)
        self._read_to += len(whole) + len(newline)
        return torn

    def _mend(self, fd: int, torn: bytes) -> None:
        """Complete a last line that only lacks its end, or remove what is there of it."""
        bad = _parsed(torn)
        if bad is None:
            os.ftruncate(fd, self._read_to)
        elif os.write(fd, b"\n") == 1:
            self._remember(*bad)
            self._read_to += len(torn) + 1

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open for reading and appending, and nobody else's meanwhile."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            try:
                if took_lock(fd) and _is_still(self.path, fd):
                    yield fd
                    return
            finally:
                os.close(fd)
            if time.monotonic() > deadline:
                raise OSError(errno.EAGAIN, f"locked by another process for {_LOCK_SECONDS:g} s")
            time.sleep(0.002)


def _is_still(path: Path, fd: int) -> bool:
    """Whether what is open under a path was not removed before it was locked."""
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _parsed(line: bytes) -> tuple[str, str] | None:
    """Path and index of a line; None if it makes no sense."""
    try:
        found = json.loads(line)
        path, index = found["path"], found["index"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return (path, index) if isinstance(path, str) and isinstance(index, str) else None
