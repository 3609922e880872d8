"""Child processes that end in time and never outlive us."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.2
FIRST_COMPLAINTS = 10
LAST_LINES = 10
COMPLAINT = re.compile(r"\berror\b|fatal|undefined reference|No space left|Killed", re.IGNORECASE)


class CommandError(Exception):
    """A command failed or took too long; says which, and the last lines that it printed."""


def excerpt(text: str) -> str:
    """What to quote from the output of a failed step: the first complaints, and how it ended."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    end = max(0, len(lines) - LAST_LINES)
    complaints = [line for line in lines[:end] if COMPLAINT.search(line)][:FIRST_COMPLAINTS]
    return "\n".join(f"    {line}" for line in [*complaints, *(["..."] if complaints else []), *lines[end:]])


@dataclass(frozen=True)
class Workspace:
    """A temporary folder to work in, and the log that outlives it."""

    folder: Path
    log: Path

    def make(self, name: str) -> Path:
        """A folder in it."""
        made = self.folder / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def run(
        self,
        what: str,
        command: Sequence[str | Path],
        variables: Mapping[str, str],
        *,
        timeout: float,
        while_waiting: Callable[[], None],
    ) -> None:
        """Runs a command, its output appended to the log.

        Raises:
            CommandError: it failed or ran past `timeout` seconds.
        """
        with self.log.open("ab") as output:
            start = output.tell()
            output.write(f"\n== {what}: {' '.join(map(str, command))}\n".encode())
            output.flush()
            child = subprocess.Popen(
                [str(part) for part in command],
                # What a killed child leaves behind goes when the workspace does.
                env={**variables, "TMPDIR": str(self.make("tmp"))},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own: make, compilers and ranks are ended together
            )
        try:
            deadline = time.monotonic() + timeout
            while child.poll() is None:
                if time.monotonic() > deadline:
                    raise CommandError(self.explain(f"{what} took longer than {timeout:.0f} s", since=start))
                while_waiting()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(POLL_SECONDS)
        finally:
            end_group(child)
        if child.returncode != 0:
            raise CommandError(self.explain(f"{what} failed with exit code {child.returncode}", since=start))

    def explain(self, what: str, *, since: int = 0) -> str:
        """What happened, an excerpt of the log from a byte onwards, and where all of it is."""
        said = self.log.read_bytes()[since:].decode(errors="replace")
        return f"{what}. From its output:\n{excerpt(said)}\n  All of it: {self.log}"


def end_group(child: subprocess.Popen[bytes]) -> None:
    """Ends a command and what it started: asked first, forced after a grace time."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, sign)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            if child.poll() is not None and not group_alive(child.pid):
                return
            time.sleep(POLL_SECONDS / 10)


def group_alive(group: int) -> bool:
    """Any process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """Makes a signal to end an ordinary exception, so that every clean-up runs; further ones are ignored meanwhile."""
    ending = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def unwind(number: int, _frame: FrameType | None) -> None:
        for each in ending:
            signal.signal(each, signal.SIG_IGN)
        print(f"\ninstall_horovod: {signal.Signals(number).name}: cleaning up", file=sys.stderr, flush=True)
        sys.exit(128 + number)

    before = {each: signal.signal(each, unwind) for each in ending}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
