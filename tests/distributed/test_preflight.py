"""The look at the hosts of a job, on two real ones of which one is made wrong in several ways."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launching import ROOT, environment
from tests.failures import documented
from tests.preflight.conftest import package

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(150)]

# What each step says is in NAME.out and NAME.err, its exit code in NAME.code, its seconds in NAME.seconds.
TWO_HOSTS = """
cd "$1"
step() { local name=$1 began=$EPOCHREALTIME; shift
    mh on hostA "$PYTHON" -m dist_loader "$@" >$name.out 2>$name.err
    echo $? >$name.code
    awk -v a=$began -v b=$EPOCHREALTIME 'BEGIN {print b - a}' >$name.seconds; }
step mpirun doctor --json --with mpirun -H "$MH_H" --data photos --script job.py
step gloo doctor --json --gloo -H "$MH_H"
mh on hostB mount --bind other path
mh on hostB mount -t tmpfs none photos
mh on hostB mount -t tmpfs -o size=6m none /dev/shm
step wrong doctor --json --with mpirun -H hostA:2,hostB:2,controller:1 --data photos
step launch launch --with mpirun -H "$MH_H" --check-data photos job.py
step anyway launch --with mpirun -H "$MH_H" --no-preflight job.py
mh link hostB down
step down launch --with mpirun -H "$MH_H" job.py
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with all that was said, after all steps."""
    folder = tmp_path_factory.mktemp("preflight")
    for name in ("photos/a/1.png", "photos/b/2.png", "path/empty"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    package(folder / "other", "keras", "3.14.0")
    (folder / "job.py").write_text("print('started')")
    env = environment()
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
    done = subprocess.run(
        [*cluster, "two", str(folder)],
        env={**env, "PYTHONPATH": f"{folder / 'path'}:{env['PYTHONPATH']}", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=140,
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert (folder / "down.code").exists(), done.stderr
    return folder


def said(hosts: Path, step: str) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """The exit code of a step, and its cells by host and check."""
    text = (hosts / f"{step}.out").read_text()
    assert text, (hosts / f"{step}.err").read_text()
    cells = {(cell["host"], cell["check"]): cell for cell in json.loads(text)["cells"]}
    return int((hosts / f"{step}.code").read_text()), cells


@pytest.mark.parametrize("step", ["mpirun", "gloo"])
def test_hosts_that_are_well(hosts: Path, step: str) -> None:
    code, cells = said(hosts, step)
    assert [cell for cell in cells.values() if cell["level"] != "ok"] == []
    assert code == 0
    assert cells["", "allreduce"]["text"].startswith("2 ranks by ")
    assert cells["hostB", "network"]["text"] == "eth0"
    if step == "mpirun":
        assert cells["hostB", "data"]["text"] == cells["hostA", "data"]["text"]
        assert cells["hostB", "data"]["text"].startswith("2 samples, ")
        assert cells["hostB", "script"]["text"] == "the same"
    assert float((hosts / f"{step}.seconds").read_text()) < 60  # a busy machine; the figures are in docs/doctor.md


def test_each_thing_that_is_wrong_is_a_red_cell(hosts: Path) -> None:
    code, cells = said(hosts, "wrong")
    bad = {place for place, cell in cells.items() if cell["level"] == "bad"}
    assert bad == {("hostB", "keras"), ("hostB", "data"), ("hostB", "/dev/shm"), ("controller", "reached")}
    assert cells["hostB", "keras"]["text"] == "3.14.0"
    assert "2 ranks of Open MPI take 8.0 MiB" in cells["hostB", "/dev/shm"]["do"]
    assert "Connection refused" in cells["controller", "reached"]["do"]
    assert code == 1


def test_a_launch_stops_with_the_table_unless_told_otherwise(hosts: Path) -> None:
    text = (hosts / "launch.err").read_text()
    assert (hosts / "launch.code").read_text() == "2\n"
    assert "dist-loader: error: hostB has keras 3.14.0, others have 3." in text
    assert documented(text)
    assert text.splitlines()[-1].endswith("mount or copy the data there; --no-preflight starts all the same")
    assert any(line.split()[0] == "data" and "! not readable" in line for line in text.splitlines())
    assert "started" not in (hosts / "launch.out").read_text()
    assert (hosts / "anyway.code").read_text() == "0\n", (hosts / "anyway.err").read_text()
    assert (hosts / "anyway.out").read_text().count("started") == 2


def test_a_host_that_does_not_answer_is_named_in_time(hosts: Path) -> None:
    lines = (hosts / "down.err").read_text().splitlines()
    assert (hosts / "down.code").read_text() == "2\n"
    assert lines[-1].startswith("dist-loader: error: hostB ")
    assert any(line.split() == ["reached", "this", "machine", "!", "no"] for line in lines)
    assert float((hosts / "down.seconds").read_text()) < 20
