"""A small process that outlives another one, to end and remove what that one leaves behind when it is killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import time

_PR_SET_PDEATHSIG = 1


class Keeper:
    """Waits, as a process of its own, for the one that made it to end; then ends a process group and removes a folder.

    A pipe tells it: the kernel closes that with the process, however it ended. The keeper belongs to another session,
    so that a signal to its maker's process group does not reach it.

    Args:
        folder: what to remove.
        gentle: seconds between asking the process group to end (SIGTERM) and making it (SIGKILL).
    """

    def __init__(self, folder: str, gentle: float) -> None:
        reading, self._writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._writing)
            _keep(reading, folder, gentle)
        os.close(reading)

    def watch(self, group: int) -> None:
        """Name the process group to end. May be called again, for the one that runs now; 0 for none."""
        os.write(self._writing, f"{group}\n".encode())

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
        groups = heard.split()
        if groups and int(groups[-1]):
            end_group(int(groups[-1]), gentle)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os._exit(0)


def end_group(group: int, gentle: float) -> None:
    """Ask the processes of a group to end, and make them after some seconds."""
    for number, seconds in ((signal.SIGTERM, gentle), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + seconds
        try:
            os.killpg(group, number)
            while time.monotonic() < deadline:
                os.killpg(group, 0)
                time.sleep(0.05)
        except (ProcessLookupError, PermissionError):
            return


def end_with(parent: int, number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent ends. Called before the process runs its program."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended before that
        os._exit(128 + int(number))
