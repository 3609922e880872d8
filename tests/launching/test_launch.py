"""A job from its start to its end, with a launcher that only starts processes."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dist_loader.cli.main import main
from dist_loader.errors import ConfigError
from dist_loader.launching.choose import Request, choose_launcher
from dist_loader.launching.commands import rank_command
from dist_loader.launching.hosts import Host, Hosts
from dist_loader.launching.launch import may_go_on
from dist_loader.launching.messages import VARIABLE
from dist_loader.launching.signals import Signals
from dist_loader.launching.supervise import Ended, supervise
from dist_loader.launching.switchboard import Switchboard
from tests.failures import documented
from tests.launching.jobs import Job, processes

Programs = Callable[..., dict[str, str]]

SCRIPT = """
import json, os, signal, sys, time
rank, restarts = os.environ["OMPI_COMM_WORLD_RANK"], os.environ["DIST_LOADER_RESTARTS"]
print(f"rank {rank}", f"start {restarts}", json.dumps(sys.argv[1:]))
how = sys.argv[1]
if how == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if how == "saves":
    signal.signal(signal.SIGTERM, lambda *_: (print("saved", rank), sys.exit(143)))
    signal.signal(signal.SIGUSR1, lambda *_: print("told", rank))
if how in ("deaf", "saves", "sleeps"):
    open(os.path.join(os.environ["TMPDIR"], "left"), "w").close()
    print("ready")
    time.sleep(60)
if rank == "1" and (how == "always" or restarts == "0"):
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how in ("once", "always"):
        sys.exit(int(sys.argv[2]))
if how == "ended by another":
    time.sleep(1.5 * int(rank))
    sys.exit(75 if rank == "0" else 9)
if how != "fine":
    time.sleep(60 if restarts == "0" else 0)
"""


@pytest.fixture
def start(programs: Programs, tmp_path: Path) -> Iterator[Callable[..., Job]]:
    (tmp_path / "script.py").write_text(SCRIPT)
    jobs = []

    def job(*arguments: str, options: tuple[str, ...] = (), with_launcher: str = "mpirun") -> Job:
        command = ["launch", "-np", "2", "--oversubscribe", "--with", with_launcher, *options, "script.py", *arguments]
        jobs.append(Job(command, programs(), tmp_path))
        return jobs[-1]

    yield job
    for each in jobs:
        each.end()


def test_the_first_that_fails_is_named_and_its_code_is_the_jobs(start: Callable[..., Job]) -> None:
    ended = start("always", "7").wait()
    assert ended.code == 7
    assert re.search(
        r"^dist-loader: rank 1 on \S+ ended with exit code 7 after \d+\.\d s, the first to fail$", ended.err, re.M
    )
    assert ended.left() == []


def test_a_rank_that_another_ended_is_not_the_first(start: Callable[..., Job]) -> None:
    ended = start("ended by another").wait()
    assert ended.code == 9
    assert re.search(r"^dist-loader: rank 1 on \S+ ended with exit code 9", ended.err, re.M)


def test_a_rank_that_dies_by_a_signal(start: Callable[..., Job]) -> None:
    ended = start("killed", options=("--log-dir", "logs")).wait()
    assert ended.code == 128 + signal.SIGKILL
    assert re.search(r"rank 1 on \S+ was ended by SIGKILL .* what it wrote is in logs/rank-1.log", ended.err)
    assert documented(ended.err)
    assert (ended.folder / "logs" / "rank-1.log").read_text().startswith('rank 1 start 0 ["killed"]')
    assert ended.out == ""
    assert ended.left() == []


def test_arguments_are_not_touched(start: Callable[..., Job]) -> None:
    given = ["fine", "a b", "'\"", "", "--", "-np", "9", ":", "x\ny", "$HOME", "--dry-run"]
    ended = start(*given).wait()
    assert (ended.code, ended.left()) == (0, [])
    assert [json.loads(line[line.index("[") :]) for line in ended.out.splitlines()] == [given, given]


def test_a_signal_from_outside_is_handed_on(start: Callable[..., Job]) -> None:
    job = start("saves", options=("--restarts", "3"))
    job.wait_for("ready", times=2)
    job.send(signal.SIGUSR1)
    job.wait_for("told", times=2)
    job.send(signal.SIGTERM)
    ended = job.wait()
    assert (ended.code, ended.left()) == (143, [])
    assert ended.out.count("saved") == 2
    assert "starting again" not in ended.err


@pytest.mark.parametrize("again", [False, True])
def test_ranks_that_do_not_listen(start: Callable[..., Job], again: bool) -> None:
    job = start("deaf", options=("--grace", "30" if again else "0.3"))
    job.wait_for("ready", times=2)
    job.send(signal.SIGTERM)
    if again:
        job.send(signal.SIGTERM)  # by two ways, which counts once
        job.wait_for("SIGTERM: handed on", err=True)
        time.sleep(1.1)
        assert job.process.poll() is None
        job.send(signal.SIGTERM)
    ended = job.wait()
    assert (ended.code, ended.left()) == (143, [])
    assert ("not ended in time" in ended.err) == (not again)


def test_nothing_is_left_when_the_launcher_is_killed(start: Callable[..., Job]) -> None:
    job = start("sleeps")
    job.wait_for("ready", times=2)
    job.send(signal.SIGKILL)
    ended = job.wait()
    deadline = time.monotonic() + 15
    while ended.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended.left() == []


def test_the_job_is_ended_in_good_order_when_it_can_have_more_hosts(
    programs: Programs, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    script = (sys.executable, str(tmp_path / "script.py"), "saves")
    answers = iter([False, False, True])
    lines: list[str] = []
    with Signals() as signals:
        switchboard = Switchboard([], 2)
        env = {**programs(), VARIABLE: switchboard.address(), "DIST_LOADER_RESTARTS": "1"}
        (tmp_path / "tmp").mkdir()
        command = ["mpirun", "-np", "2", *rank_command(sys.executable, script, None)]
        folder = str(tmp_path / "tmp")
        ended = supervise(
            command,
            env,
            switchboard,
            signals,
            folder,
            20,
            lines.append,
            more_hosts=lambda: next(answers),
            ask_every=0.5,
        )
    assert (ended.for_more, ended.failure, ended.stopped_by) == (True, None, None)
    assert lines == ["more hosts answer again, so the ranks have 20 s to write a checkpoint"]
    assert capfd.readouterr().out.count("saved") == 2
    assert may_go_on(ended, 1, 0, allocated=False)


def test_a_launcher_that_is_not_installed(tmp_path: Path) -> None:
    here = Hosts("this machine", (Host("localhost"),))
    with pytest.raises(ConfigError, match="srun is neither on PATH nor beside"):
        choose_launcher(Request(("script.py",), launcher="srun"), here, {"PATH": str(tmp_path)})


def test_a_rank_is_killed_with_the_process_that_watches_over_it(start: Callable[..., Job]) -> None:
    job = start("sleeps")
    job.wait_for("ready", times=2)
    rank = f"{sys.executable} -m dist_loader.launching.rank"
    watching = [int(line.split()[0]) for line in processes(job.mark) if line.split(" ", 1)[1].startswith(rank)]
    os.kill(min(watching), signal.SIGKILL)  # the others are mostly their keepers, which were forked from them
    ended = job.wait()
    assert ended.code == 137
    assert "was killed, with the process that watched over it" in ended.err
    assert ended.left() == []


def test_a_launcher_that_is_killed_is_said_to_be(start: Callable[..., Job]) -> None:
    job = start("sleeps")
    job.wait_for("ready", times=2)
    mpirun = [int(line.split()[0]) for line in processes(job.mark) if "bin/mpirun --bind-to" in line]
    os.kill(min(mpirun), signal.SIGKILL)
    ended = job.wait()
    assert ended.code == 137
    assert "the launcher itself was ended by SIGKILL" in ended.err
    assert documented(ended.err)
    assert ended.left() == []


@pytest.mark.parametrize(
    ("code", "stopped_by", "failures", "allocated", "again"),
    [
        (1, None, 1, False, True),
        (1, None, 2, False, True),
        (1, None, 3, False, False),
        (0, None, 1, False, False),
        (2, None, 1, False, False),
        (143, signal.SIGTERM, 1, False, False),
        (143, None, 1, False, True),  # one host is taken back
        (143, None, 1, True, False),  # all of them are
        (137, None, 1, True, True),
    ],
)
def test_when_a_job_is_started_again(
    code: int, stopped_by: signal.Signals | None, failures: int, allocated: bool, again: bool
) -> None:
    assert may_go_on(Ended(code, None, stopped_by, 1.0), failures, 2, allocated) == again


def test_a_restart_goes_on(start: Callable[..., Job]) -> None:
    ended = start("once", "5", options=("--restarts", "2", "--log-dir", "logs")).wait()
    assert (ended.code, ended.left()) == (0, [])
    assert ended.err.count("starting again") == 1
    log = (ended.folder / "logs" / "rank-1.log").read_text()
    assert ("start 0" in log, "start 1" in log, "start 2" in log) == (True, True, False)


@pytest.mark.parametrize(("code", "starts"), [(5, 2), (2, 1)])
def test_restarts_are_counted_and_not_for_what_they_cannot_mend(
    start: Callable[..., Job], code: int, starts: int
) -> None:
    ended = start("always", str(code), options=("--restarts", "1")).wait()
    assert ended.code == code
    assert ended.err.count("dist-loader: $ ") == starts


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-np", "3", "-H", "localhost:2", "script.py"], "3 ranks do not fit into 2 slots"),
        (["-H", "localhost:x", "script.py"], "no number of ranks"),
        (["-H", "refused:2", "script.py"], "refused cannot be reached"),
        (["-H", "bare:2", "script.py"], "bare has no dist_loader"),
        (["missing.py"], "no script 'missing.py'"),
        (["nosuchprogram"], "neither a script"),
        (["--with", "local", "-np", "2", "script.py"], "one process"),
        (["-np", "0", "script.py"], "at least 1"),
        (["--grace", "soon", "script.py"], "seconds"),
        ([], "SCRIPT is missing"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    programs: Programs,
    tmp_path: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "script.py").touch()
    monkeypatch.chdir(tmp_path)
    for name, value in programs().items():
        monkeypatch.setenv(name, value)
    try:
        code = main(["launch", *arguments])
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    *usage, line = capfd.readouterr().err.splitlines()
    assert says in line
    assert all(each.startswith("usage:") for each in usage)
