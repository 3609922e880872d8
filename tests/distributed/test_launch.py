"""`dist-loader launch` with the real launchers, on one host and on two."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.distributed.launching import JOBS, ROOT, environment
from tests.launching.jobs import Ended, Job, processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(170)]

ARGUMENTS = ["a b", "'\"", "", "--", "-np", "9", ":", "x\ny", "$HOME", "--dry-run", "*"]
LAUNCHERS = ["mpirun", "horovodrun"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs = []

    def job(launcher: str, *arguments: str, options: tuple[str, ...] = ()) -> Job:
        command = ["launch", "-np", "2", "--oversubscribe", "--with", launcher, *options]
        jobs.append(Job([*command, str(JOBS / "launched.py"), *arguments], environment(), tmp_path))
        return jobs[-1]

    yield job
    for each in jobs:
        each.end()


def said(out: str) -> list[list[str]]:
    """What the ranks printed, without the launchers' tags."""
    return [json.loads(line) for line in re.findall(r"\[\"rank .*\]", out)]


def gone(ended: Ended, seconds: float = 30) -> list[str]:
    """What is left of a job after some time."""
    deadline = time.monotonic() + seconds
    while ended.left() and time.monotonic() < deadline:
        time.sleep(0.1)
    return ended.left()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_rank_fails_and_the_job_goes_on(start: Callable[..., Job], launcher: str) -> None:
    """Arguments, exit code, name and restart in one launch, for each costs seconds."""
    restarts = ("--restarts", "1") if launcher == "mpirun" else ()
    ended = start(launcher, "once", *ARGUMENTS, options=restarts).wait()
    assert "rank 1 on " in ended.err
    assert " ended with exit code 7 after " in ended.err
    assert (ended.code, ended.left()) == (0 if restarts else 7, [])
    lines = said(ended.out)
    assert {tuple(line[3:]) for line in lines} == {tuple(ARGUMENTS)}
    starts = {(line[0], line[1]) for line in lines}
    assert starts == {(f"rank {n} of 2", f"start {k}") for n in (0, 1) for k in range(2 if restarts else 1)}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_sigterm_ends_the_job_and_leaves_nothing(start: Callable[..., Job], launcher: str) -> None:
    job = start(launcher, "saves")
    job.wait_for("ready", times=2)
    job.send(signal.SIGTERM)
    ended = job.wait()
    assert (ended.code, ended.left()) == (143, [])
    assert {"saved 0", "saved 1"} <= set(re.findall(r"saved \d", ended.out))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_nothing_is_left_of_a_killed_launcher(start: Callable[..., Job], launcher: str) -> None:
    job = start(launcher, "sleeps")
    job.wait_for("ready", times=2)
    job.send(signal.SIGKILL)
    assert gone(job.wait()) == []


TWO_HOSTS = """
cd "$1"
launch=(-m dist_loader launch --with mpirun -H "$MH_H" --restarts 2 --min-np 1)
mh on hostA "$2" "${launch[@]}" "$3" loses 'a b' : >out 2>err & job=$!
for ((n = 0; n < 600; n++)); do (($(grep -c ready out) == 2)) && break; sleep 0.1; done
began=$(date +%s)
mh link hostB down
while (($(date +%s) - began < 20)) && ! grep -q "was lost" err; do sleep 0.1; done
echo $(($(date +%s) - began)) >noticed
wait $job; echo $? >code
for ((n = 0; n < 100; n++)); do
    for host in $MH_HOSTS; do mh on $host ps -eo args; done | grep -E '[l]aunched.py|[o]rted' >left || exit 0
    sleep 0.2
done
"""


def test_a_host_that_goes_is_named_and_the_job_goes_on_without_it(tmp_path: Path) -> None:
    programs = ["ssh", "ip", "unshare", "nsenter", "setpriv"]
    missing = [name for name in programs if shutil.which(name) is None]
    if os.geteuid() or missing or not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()):
        pytest.skip(f"hosts are made of network namespaces and sshd, which needs root, {', '.join(programs)} and sshd")
    cluster = [
        "bash",
        str(ROOT / "tests/distributed/multihost.sh"),
        "-n",
        "2",
        "-t",
        "120",
        "--",
        "bash",
        "-c",
        TWO_HOSTS,
    ]
    name, mark = "TEST_MARK", f"TEST_MARK={tmp_path}"
    done = subprocess.run(
        [*cluster, "two", str(tmp_path), sys.executable, str(JOBS / "launched.py")],
        env={**environment(), name: str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    out, err = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert (tmp_path / "code").read_text() == "0\n", done.stderr + out + err
    assert "rank 1 on hostB was lost: its host does not answer any more, the first to fail" in err
    assert int((tmp_path / "noticed").read_text()) < 15
    assert "from 2 to 1 ranks" in err
    assert "--mca btl_tcp_if_include eth0" in err
    lines = sorted(said(out))
    assert lines == [
        [f"rank {rank} of {size}", f"start {start}", "loses", "a b", ":"]
        for rank, size, start in ((0, 1, 1), (0, 2, 0), (1, 2, 0))
    ]
    assert (tmp_path / "left").read_text() == ""
    assert processes(mark) == []
