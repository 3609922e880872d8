"""Plain processes that are watched as ranks: ranks.py FOLDER JOBS.

JOBS are lists of orders by the job's name, a JSON object; an order for each rank: its host, steps of 50 ms to take, and
what to do then (see `act`; "firewalled" does not reach rank 0). A job has a folder in FOLDER, where its ranks meet, and
leave their process numbers, logs, stderr, steps and exit codes. All are forked from here, so that they start fast.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from dist_loader.watchdog import Limits, Meeting, Notes, Watch
from dist_loader.watchdog.addresses import listener, local_addresses
from dist_loader.watchdog.lines import End

LIMITS = Limits(stall=1.5, lost=1.5, first=6.0, grace=0.5, meet=2.0)


def main(folder: str, jobs: str) -> None:
    """Start all ranks, and write down how they ended."""
    started = {}
    for name, orders in json.loads(jobs).items():
        there = Path(folder) / name
        there.mkdir()
        hosts = tuple(order.split()[0] for order in orders)
        for rank, order in enumerate(orders):
            process = os.fork()
            if process == 0:
                os.dup2(os.open(there / f"stderr-{rank}", os.O_CREAT | os.O_WRONLY), 2)
                be_rank(rank, there, hosts, *order.split()[1:])
            write(there / f"pid-{rank}", str(process))
            started[process] = there / f"code-{rank}"
    while started:
        process, status = os.wait()
        write(started.pop(process), str(os.waitstatus_to_exitcode(status)))


def be_rank(rank: int, there: Path, hosts: tuple[str, ...], steps: str, what: str) -> None:
    logging.basicConfig(filename=there / f"rank-{rank}.log", level=logging.INFO)
    server = listener() if rank == 0 else None
    if server is not None:
        write(there / "meeting", json.dumps({"port": server.getsockname()[1], "addresses": local_addresses()}))
    while not (there / "meeting").exists():
        time.sleep(0.02)
    at = json.loads((there / "meeting").read_text())
    port = 1 if what == "firewalled" else at["port"]
    waits_for: list[str] = []
    notes = Notes(lambda stage, step: waits_for[0] if waits_for else None)
    watch = Watch(Meeting(rank, hosts, tuple(at["addresses"]), port, "secret"), notes, LIMITS, server)
    for step in range(int(steps)):
        notes.mark("step", epoch=0, step=step)
        time.sleep(0.05)
        write(there / f"step-{rank}", str(step))
    watch.end(act(what, notes, waits_for))
    os._exit(2 if what == "raise" else 0)


def act(what: str, notes: Notes, waits_for: list[str]) -> End:
    if what == "sleep":
        notes.mark("callbacks")
        time.sleep(60)
    elif what == "wait":
        notes.mark("step", step=notes.place.step + 1)
        time.sleep(60)
    elif what == "starve":
        waits_for.append("photos/slow.jpg")
        notes.mark("step", step=notes.place.step + 1)
        time.sleep(60)
    elif what == "hold":  # the GIL
        notes.mark("step")
        reading, writing = os.pipe()
        with subprocess.Popen(["sleep", "3"], stdout=writing):
            os.close(writing)
            # A signal does not end it, as it would end a sleep.
            ctypes.PyDLL(None).read(reading, ctypes.create_string_buffer(1), 1)
    elif what == "compile":
        notes.mark("first step")
        time.sleep(2.5)
    elif what == "break":
        notes.input = lambda stage, step: str(1 / 0)
        notes.mark("step")
        time.sleep(1.0)
    elif what == "exit":
        os._exit(9)
    elif what == "raise":
        return End("failed", "SampleError: cannot read 'x.jpg'")
    elif what == "follow":
        return End("followed", "HorovodInternalError: shut down")
    return End("done")


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}")
    part.write_text(text)
    part.rename(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
