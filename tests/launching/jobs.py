"""A launched job, followed from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """What a job left: its exit code, its output, and what of it is still there."""

    code: int
    out: str
    err: str
    folder: Path
    mark: str

    def left(self) -> list[str]:
        """Processes that still run, and temporary files."""
        files = [str(path) for path in (self.folder / "tmp").rglob("*")]
        return processes(self.mark) + files


class Job:
    """`dist-loader ARGUMENTS`, started in a folder, with its temporary files in a folder of their own."""

    def __init__(self, arguments: Sequence[str], env: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self.mark = f"TEST_MARK={uuid.uuid4()}"
        name, value = self.mark.split("=")
        (folder / "tmp").mkdir(exist_ok=True)
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dist_loader", *arguments],
                cwd=folder,
                env={**env, "TMPDIR": str(folder / "tmp"), name: value},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def wait_for(self, text: str, times: int = 1, err: bool = False, seconds: float = 60) -> None:
        """Wait until a text was written so many times."""
        deadline = time.monotonic() + seconds
        while (said := (self.folder / ("err" if err else "out")).read_text()).count(text) < times:
            assert self.process.poll() is None, said + (self.folder / "err").read_text()
            assert time.monotonic() < deadline, said + (self.folder / "err").read_text()
            time.sleep(0.02)

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 60) -> Ended:
        code = self.process.wait(seconds)
        return Ended(code, (self.folder / "out").read_text(), (self.folder / "err").read_text(), self.folder, self.mark)

    def end(self) -> None:
        """Leave nothing behind, whatever the test has found."""
        self.process.kill()
        self.process.wait()
        for process in processes(self.mark):
            with suppress(ProcessLookupError):
                os.kill(int(process.split()[0]), 9)


def processes(mark: str) -> list[str]:
    """The processes that were started with a variable in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if mark.encode() in environment:
            found.append(f"{entry.name} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found
