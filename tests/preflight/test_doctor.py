"""`dist-loader doctor` and the look before a launch, through the command line; no rank is started that could train."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dist_loader.launching.probe import over_ssh
from dist_loader.preflight.ask import ask_facts
from dist_loader.preflight.facts import Wanted
from tests.preflight.conftest import ROOT, package

Programs = Callable[..., dict[str, str]]

SMI = """
import sys
if "-L" in sys.argv:
    [print(f"GPU {n}: NVIDIA H100 (UUID: GPU-{n})") for n in range(2)]
else:
    [print("NVIDIA H100 80GB HBM3, 550.54.15, 81559") for n in range(2)]
"""
NO_DRIVER = """
import sys
sys.exit("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
"""
# Starts the ranks one after the other, with Horovod's own variables.
RUN = """
import os, subprocess, sys
if "--version" in sys.argv:
    sys.exit(print("mpirun (Open MPI) 5.0.1"))
at = sys.argv.index("-m") - 1
for rank in range(int(sys.argv[sys.argv.index("-np") + 1])):
    names = {"RANK": rank, "SIZE": 1, "LOCAL_RANK": rank, "LOCAL_SIZE": 1}
    env = {**os.environ, **{f"HOROVOD_{name}": str(value) for name, value in names.items()}}
    if code := subprocess.run(sys.argv[at:], env=env).returncode:
        sys.exit(code)
"""

SRUN = """
import os, subprocess, sys
nodes = next(word for word in sys.argv if word.startswith("--nodelist=")).partition("=")[2].split(",")
for node in nodes[:2]:
    command = sys.argv[sys.argv.index("-m") - 1:]
    subprocess.run(command, env={**os.environ, "SLURMD_NODENAME": node}, check=True)
sys.exit("srun: error: gpu3: node is down")
"""


def dist_loader(
    *arguments: str, env: dict[str, str], folder: Path, limit: int | None = None
) -> subprocess.CompletedProcess[str]:
    """The command line, with a limit of open files if wanted."""
    command = [sys.executable, "-m", "dist_loader", *arguments]
    if limit is not None:
        command = ["sh", "-c", f'ulimit -n {limit}; exec "$@"', "sh", *command]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=60)


def no_horovod(folder: Path) -> str:
    """A PYTHONPATH with a Horovod that has no library and no version, so that no rank is tried."""
    (folder / "empty" / "horovod").mkdir(parents=True)
    (folder / "empty" / "horovod" / "__init__.py").touch()
    return f"{folder / 'empty'}:{ROOT}"


def found(done: subprocess.CompletedProcess[str]) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    """What `--json` says: the cells by host and check, and all of it."""
    said = json.loads(done.stdout)
    return {(cell["host"], cell["check"]): cell for cell in said["cells"]}, said


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_one_machine_and_what_can_work_there(programs: Programs, tmp_path: Path, photos: Path) -> None:
    """Two GPUs, which nvidia-smi shows, and a Horovod that was built against another TensorFlow."""
    built = tmp_path / "built" / "horovod"
    (built / "tensorflow").mkdir(parents=True)
    (built / "__init__.py").touch()
    (built / "metadata.json").write_text('{"tensorflow": "1.15.0"}')
    (built / "tensorflow" / "mpi_lib.so").write_bytes(b"GlooController ncclAllReduce")
    package(tmp_path / "built", "horovod", "0.28.1")
    env = programs({"nvidia-smi": SMI, "mpirun": RUN}, PYTHONPATH=f"{tmp_path / 'built'}:{ROOT}")
    env.pop("CUDA_VISIBLE_DEVICES", None)
    done = dist_loader("doctor", "--json", "--with", "mpirun", "--data", "photos", env=env, folder=tmp_path)
    cells, said = found(done)
    assert (done.returncode, said["ok"]) == (1, False)
    assert cells["localhost", "gpus"]["text"] == "2 x NVIDIA H100 80GB HBM3"
    assert cells["localhost", "driver"]["text"] == "550.54.15"
    assert cells["localhost", "data"]["text"].startswith("3 samples, ")
    assert "built against TensorFlow 1.15.0" in cells["localhost", "horovod"]["do"]
    works = {way["name"]: way["works"] for way in said["strategies"]}
    assert works == {
        "single": True,
        "mirrored": True,
        **dict.fromkeys(["horovodrun --gloo", "horovodrun --mpi", "mpirun", "srun"], False),
    }
    assert ("", "allreduce") not in cells  # nothing is started where something is red


def test_for_people_it_is_a_table_and_what_to_do(programs: Programs, tmp_path: Path) -> None:
    env = programs({"nvidia-smi": NO_DRIVER}, PYTHONPATH=no_horovod(tmp_path))
    done = dist_loader("doctor", "--data", "missing", env=env, folder=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.split()[:2] == ["data", "!"] for line in lines)
    assert any(line.startswith("! localhost: image folder ") and "does not exist" in line for line in lines)
    assert any("couldn't communicate with the NVIDIA driver" in line for line in lines if line.startswith("? "))
    assert any(line.split()[:2] == ["mirrored", "cannot"] for line in lines)
    assert done.stderr == ""


def test_several_hosts_are_compared(programs: Programs, tmp_path: Path, photos: Path) -> None:
    env = programs({}, CUDA_VISIBLE_DEVICES="")
    hosts = "localhost:1,fine:1,older:1,refused:1"
    asked = ("doctor", "--json", "--with", "mpirun", "-H", hosts, "--data", "photos")
    done = dist_loader(*asked, env=env, folder=tmp_path)
    cells, said = found(done)
    assert done.returncode == 1
    bad = {place for place, cell in cells.items() if cell["level"] == "bad"}
    assert bad == {("older", "keras"), ("refused", "reached")}
    assert "pip install keras==" in cells["older", "keras"]["do"]
    assert "Connection refused" in cells["refused", "reached"]["do"]
    assert cells["fine", "data"]["text"] == cells["localhost", "data"]["text"]
    assert said["hosts"]["refused"].keys() == {"problem"}


def test_nodes_of_slurm_are_asked_by_srun(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('started')")
    allocation = {"SLURM_JOB_NODELIST": "gpu[1-3]", "SLURM_NTASKS": "3", "SLURM_TASKS_PER_NODE": "1(x3)"}
    env = programs({"srun": SRUN}, PYTHONPATH=no_horovod(tmp_path), CUDA_VISIBLE_DEVICES="", **allocation)
    cells, _ = found(dist_loader("doctor", "--json", env=env, folder=tmp_path))
    assert {host for host, check in cells if check == "python"} == {"gpu1", "gpu2"}
    assert "gpu3 did not answer to srun" in cells["gpu3", "reached"]["do"]
    assert "error: gpu3: node is down" in cells["gpu3", "reached"]["do"]
    done = dist_loader("launch", "script.py", env=env, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0].split() == ["gpu1", "gpu2", "gpu3"]


def test_a_host_that_is_silent_takes_no_longer_than_the_bound(programs: Programs, tmp_path: Path) -> None:
    began = time.monotonic()
    heard = ask_facts(["silent", "fine"], [], Wanted(str(tmp_path)), programs({}), bound=4)
    assert time.monotonic() - began < 8
    assert heard["silent"].problem == "silent did not answer within 4 s; try: ssh silent true"
    assert heard["fine"].facts is not None


def test_what_is_asked_over_ssh_finds_the_libraries_that_the_ranks_will_find() -> None:
    command = over_ssh("node", {"PYTHONPATH": "/my code", "LD_LIBRARY_PATH": "/opt/mpi/lib"}, ["module", "{}"], 10)
    assert command[-2:] == [
        "node",
        f"env 'PYTHONPATH=/my code' LD_LIBRARY_PATH=/opt/mpi/lib {sys.executable} -m module '{{}}'",
    ]


def test_horovod_is_needed_on_several_hosts(programs: Programs, tmp_path: Path) -> None:
    env = programs({}, PYTHONPATH=no_horovod(tmp_path))
    done = dist_loader("doctor", "--with", "mpirun", "-H", "localhost:1,fine:1", env=env, folder=tmp_path)
    assert done.returncode == 1
    assert "! Horovod is not installed: python launch/install_horovod.py builds it" in done.stdout


def test_a_launch_does_not_start_on_hosts_that_do_not_fit(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('started')")
    env = programs({"horovodrun": RUN}, PYTHONPATH=no_horovod(tmp_path), CUDA_VISIBLE_DEVICES="")
    hosts = ["--gloo", "-H", "fine:1,older:1,localhost:1"]
    done = dist_loader("launch", *hosts, "script.py", env=env, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    table, line = done.stderr.splitlines()[:-1], done.stderr.splitlines()[-1]
    assert table[0].split() == ["fine", "older", "localhost"]
    assert any(row.split()[0] == "keras" and "! 3.14.0" in row for row in table)
    assert "older has keras 3.14.0, others have 3.15" in line
    assert line.endswith("--no-preflight starts all the same")
    printed = dist_loader("launch", "--dry-run", *hosts, "script.py", env=env, folder=tmp_path)
    assert (printed.returncode, printed.stderr) == (0, "")


def test_a_launch_on_one_machine_looks_at_its_limits_only(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("print('started')")
    launch = ("launch", "-np", "1", "--with", "mpirun")
    env = programs({"mpirun": RUN.replace("5.0.1", "4.1.8")})
    done = dist_loader(*launch, "script.py", env=env, folder=tmp_path, limit=200)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "localhost allows 200 open files, 1 ranks take 260: ulimit -n 65536" in line
    for more, limit in ((["--no-preflight"], 200), ([], 300)):
        done = dist_loader(*launch, *more, "script.py", env=env, folder=tmp_path, limit=limit)
        assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


def test_ranks_that_cannot_add_a_number_are_named(programs: Programs, tmp_path: Path) -> None:
    """A launcher that tells its ranks nothing useful, so that Horovod cannot start."""
    pytest.importorskip("horovod")
    env = programs(
        {"horovodrun": RUN}, CUDA_VISIBLE_DEVICES="", HOROVOD_CONTROLLER="gloo", HOROVOD_GLOO_RENDEZVOUS_ADDR=""
    )
    done = dist_loader("doctor", "--gloo", "-np", "1", env=env, folder=tmp_path)
    assert done.returncode == 1, done.stdout
    assert "allreduce" in done.stdout
    assert "! one number could not be added over 1 ranks by horovodrun --gloo: rank 0 on " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-H", "localhost:x"], "no number of ranks"),
        (["-H", "localhost:1", "-np", "3"], "3 ranks do not fit"),
        (["--with", "srun"], "srun is neither on PATH"),
        (["-np", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_line(programs: Programs, tmp_path: Path, arguments: list[str], says: str) -> None:
    env = programs({}, PYTHONPATH=no_horovod(tmp_path))
    if "srun" in arguments:
        env["PATH"] = str(tmp_path)
    done = dist_loader("doctor", *arguments, env=env, folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]
