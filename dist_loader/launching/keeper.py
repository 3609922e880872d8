"""A small process that outlives another one, to end and remove what that one leaves behind when it is killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1


class Keeper:
    """Waits, as a process of its own, for the one that made it to end; then ends a session and removes a folder.

    A pipe tells it: the kernel closes that with the process, however it ended. The keeper belongs to another session,
    so that what ends its maker does not reach it.

    Args:
        folder: what to remove.
        gentle: seconds between asking the session to end (SIGTERM) and making it (SIGKILL).
    """

    def __init__(self, folder: str, gentle: float) -> None:
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            _keep(reading, folder, gentle)
        os.close(reading)

    def watch(self, session: int) -> None:
        """Name the session to end. May be called again, for the one that runs now; 0 for none."""
        os.write(self._writing, f"{session}\n".encode())

    def done(self) -> None:
        """Tell it that this is the end, and wait until it has done its work."""
        os.close(self._writing)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def _keep(reading: int, folder: str, gentle: float) -> None:
    """The keeper's life. It never returns."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        # No other end of anything: pipes of the maker must close when the maker ends.
        quiet = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(quiet, standard)
        keep_open = {0, 1, 2, reading}
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - numbers, not paths
            if int(name) not in keep_open:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        heard = b""
        while piece := os.read(reading, 4096):
            heard += piece
        sessions = heard.split()
        if sessions and int(sessions[-1]):
            end_session(int(sessions[-1]), gentle)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def end_session(session: int, gentle: float) -> None:
    """Ask the processes of a session to end, and make them after some seconds.

    A session, for mpirun and others put what they start into process sessions of their own.
    """
    for number, seconds in ((signal.SIGTERM, gentle), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        for process in _processes_of(session):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, number)
        while _processes_of(session):
            if time.monotonic() >= deadline:
                break
            time.sleep(0.05)
        else:
            return


def _processes_of(session: int) -> list[int]:
    """The processes of a session that run (proc(5): state, parent, group and session stand behind the name)."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - numbers, not paths
        with contextlib.suppress(OSError):
            state, _, _, its, *_ = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            if int(its) == session and state not in "ZX":
                found.append(int(process))
    return found


def end_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends. Called before the process runs its program."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended before that
        os._exit(128 + int(number))
