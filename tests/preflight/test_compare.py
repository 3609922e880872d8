"""Facts of hosts, and what is said about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dist_loader.launching.hosts import Host
from dist_loader.preflight.built import short
from dist_loader.preflight.cells import Cell
from dist_loader.preflight.compare import Heard, Plan, compare
from dist_loader.preflight.examine import spread
from dist_loader.preflight.facts import Data, Facts, Gpu, Horovod, of_json, to_json
from dist_loader.preflight.gpus import read
from dist_loader.preflight.strategies import ways
from dist_loader.preflight.table import advice, table

GIB = 1 << 30
CARD = Gpu("NVIDIA H100 80GB HBM3", "550.54.15", 81559)
HOROVOD = Horovod("2.21.0", True, "Open MPI 4.1.8", True)
WELL = Facts(
    host="a",
    python="3.11.7",
    versions={"dist_loader": "0.1.0", "tensorflow": "2.21.0", "keras": "3.15.1", "horovod": "0.28.1", "numpy": "2.4.6"},
    gpus=(CARD,) * 4,
    usable=4,
    horovod=HOROVOD,
    mpirun="Open MPI 4.1.8",
    shm=8 * GIB,
    free={"/tmp": 50 * GIB},
    files=65536,
    interfaces={"lo": "127.0.0.1", "eth0": "10.0.0.2", "docker0": "172.17.0.1"},
    reached_by="eth0",
    script="12ab",
    data=Data(fingerprint="f" * 32, samples=1281167, parts={"class folders": "1000, aa", "n01": "bb"}),
    clock=(100.2, 101.0),
)
PLAN = Plan("mpirun", {"a": 4, "b": 4, "c": 4}, folder="/job", script="/job/train.py", data="/photos")


def cells(plan: Plan = PLAN, **hosts: Facts | str) -> list[Cell]:
    """The cells of three hosts, of which those that are not given are well."""
    all_of_them: dict[str, Facts | str] = {"a": WELL, "b": other("10.0.0.3"), "c": other("10.0.0.4"), **hosts}
    heard = {
        host: Heard(problem=each) if isinstance(each, str) else Heard(each, began=100.0, ended=101.1)
        for host, each in all_of_them.items()
    }
    return compare(heard, plan)


def other(address: str, **wrong: Any) -> Facts:
    return replace(WELL, **{"host": address, "interfaces": {**WELL.interfaces, "eth0": address}, **wrong})


def test_hosts_that_are_alike_are_well() -> None:
    found = cells()
    assert {cell.level for cell in found} == {"ok"}
    assert all(cell.do == "" for cell in found)
    assert {cell.check for cell in found} >= {
        "reached",
        "python",
        "tensorflow",
        "gpus",
        "driver",
        "data",
        "clock",
        "network",
    }


BAD: list[tuple[str, dict[str, Any], Plan, str]] = [
    ("python", {"python": "3.12.1"}, PLAN, "b has python 3.12.1, others have 3.11.7"),
    (
        "tensorflow",
        {"versions": {**WELL.versions, "tensorflow": "2.20.0"}},
        PLAN,
        "b has tensorflow 2.20.0, others have 2.21.0: pip install tensorflow==2.21.0 there",
    ),
    (
        "horovod",
        {"versions": {k: v for k, v in WELL.versions.items() if k != "horovod"}, "horovod": None},
        PLAN,
        "b has no horovod, others have",
    ),
    ("horovod", {"horovod": replace(HOROVOD, tensorflow="2.20.0")}, PLAN, "built against TensorFlow 2.20.0"),
    ("horovod", {"horovod": replace(HOROVOD, missing=("libnccl.so.2",))}, PLAN, "libnccl.so.2, which is not found"),
    ("other packages", {"versions": {**WELL.versions, "numpy": "2.0.0"}}, PLAN, "pip install numpy==2.4.6"),
    ("dist_loader", {"versions": {**WELL.versions, "dist_loader": "0.2.0"}}, PLAN, "0.1.0"),
    ("mpi", {"horovod": replace(HOROVOD, mpi=None)}, PLAN, "has no MPI"),
    (
        "mpi",
        {"mpirun": "Open MPI 5.0.1"},
        PLAN,
        "mpirun on b is of Open MPI 5.0.1, Horovod is linked to Open MPI 4.1.8",
    ),
    ("mpi", {"mpirun": "MPICH 4.2.1"}, PLAN, "mpirun on b is of MPICH 4.2.1"),
    ("gloo", {"horovod": replace(HOROVOD, gloo=False)}, replace(PLAN, launcher="gloo"), "has no Gloo"),
    ("gpus", {"usable": 2, "gpus": (CARD,) * 2}, PLAN, "b has 2 GPUs for 4 ranks: b:2 in -H"),
    ("gpus", {"usable": 0, "gpus": ()}, PLAN, "no GPU"),
    ("script", {"script": None}, PLAN, "b has no /job/train.py"),
    ("script", {"script": "34cd"}, PLAN, "is not the one that the others have"),
    ("script", {"has_folder": False, "script": None}, PLAN, "no folder /job"),
    ("data", {"data": Data(problem="image folder '/photos' does not exist")}, PLAN, "does not exist; mount or copy"),
    ("data", {"data": Data(fingerprint="e" * 32, samples=1281166)}, PLAN, "does not hold the samples"),
    ("/dev/shm", {"shm": 12 << 20}, PLAN, "4 ranks of Open MPI take 16 MiB"),
    ("/dev/shm", {"shm": None}, PLAN, "has none left"),
    ("free space", {"free": {"/tmp": 1 << 20}}, PLAN, "make room there"),
    ("open files", {"files": 256}, PLAN, "12 ranks take 304: ulimit -n"),
    ("clock", {"clock": (40.0, 41.0)}, PLAN, "60 s slow"),
    ("clock", {"clock": (160.0, 161.0)}, PLAN, "60 s fast"),
    ("network", {"interfaces": {"ens3": "10.0.0.3"}}, replace(PLAN, launcher="gloo"), "no name is on all hosts"),
    ("network", {"interfaces": {"ens3": "10.0.0.3"}}, replace(PLAN, interfaces=("eth0",)), "no network interface eth0"),
]


@pytest.mark.parametrize(("check", "wrong", "plan", "says"), BAD)
def test_what_keeps_a_job_from_running(check: str, wrong: dict[str, Any], plan: Plan, says: str) -> None:
    found = [cell for cell in cells(plan, b=other(**{"address": "10.0.0.3", **wrong})) if cell.level == "bad"]
    assert ("b", check) in {(cell.host, cell.check) for cell in found}
    assert says in " ".join(cell.do for cell in found)
    assert check == "network" or {cell.host for cell in found} == {"b"}


WARNINGS: list[tuple[str, dict[str, Any], str]] = [
    ("driver", {"gpus": (replace(CARD, driver="535.1"),) * 4}, "b has driver 535.1, others have 550.54.15"),
    ("gpus", {"cpu_only": True}, "tensorflow[and-cuda]"),
    ("gpus", {"horovod": replace(HOROVOD, nccl=False)}, "without NCCL"),
    ("/dev/shm", {"shm": 64 << 20}, "NCCL wants about 1.0 GiB"),
    ("free space", {"free": {"/tmp": GIB // 2, "/job": 9 * GIB}}, "/tmp on b has 512 MiB left"),
    ("locked memory", {"infiniband": True, "memlock": 65536}, "ulimit -l unlimited"),
    ("clock", {"clock": (97.0, 99.0)}, "3 s slow"),
    ("network", {"interfaces": {"ens3": "10.0.0.3"}}, "no name is on all hosts"),
]


@pytest.mark.parametrize(("check", "wrong", "says"), WARNINGS)
def test_what_is_only_warned_of(check: str, wrong: dict[str, Any], says: str) -> None:
    found = cells(b=other(**{"address": "10.0.0.3", **wrong}))
    assert not [cell for cell in found if cell.level == "bad"]
    assert ("b", check) in {(cell.host, cell.check) for cell in found if cell.level == "warn"}
    assert says in " ".join(advice(found, "warn"))


def test_an_interface_that_has_the_same_address_everywhere_leads_nowhere() -> None:
    without = {name: {"docker0": "172.17.0.1", f"eth{name}": f"10.0.0.{n}"} for n, name in enumerate("abc")}
    found = cells(
        replace(PLAN, launcher="gloo"),
        **{name: replace(WELL, host=name, interfaces=own, reached_by=f"eth{name}") for name, own in without.items()},
    )
    assert [(cell.level, cell.text) for cell in found if cell.check == "network"] == [
        ("bad", "etha"),
        ("bad", "ethb"),
        ("bad", "ethc"),
    ]


def test_one_machine_under_two_names_has_its_own_network() -> None:
    found = cells(b=WELL, c=WELL)
    assert {(cell.level, cell.text) for cell in found if cell.check == "network"} == {("ok", "eth0")}


def test_locked_memory_matters_only_with_infiniband() -> None:
    assert {cell.level for cell in cells(b=other("10.0.0.3", memlock=65536))} == {"ok"}


def test_a_host_that_does_not_answer_leaves_the_others_cells() -> None:
    found = cells(b="b did not answer within 10 s; try: ssh b true")
    assert [(cell.check, cell.level) for cell in found if cell.host == "b"] == [("reached", "bad")]
    assert {cell.level for cell in found if cell.host != "b"} == {"ok"}
    assert len([cell for cell in found if cell.host == "c"]) > 10


def test_data_too_large_to_be_listed_is_compared_in_part() -> None:
    part = {"class folders": "1000, aa", "n01": "bb"}
    found = [cell for cell in cells(b=other("10.0.0.3", data=Data(parts=part))) if cell.check == "data"]
    assert [cell.level for cell in found] == ["warn"] * 3
    assert "not all of it was compared" in found[1].do
    wrong = Data(parts={**part, "n01": "cc"})
    found = [cell for cell in cells(b=other("10.0.0.3", data=wrong)) if cell.check == "data"]
    assert [cell.level for cell in found] == ["warn", "bad", "warn"]


def test_ranks_are_given_to_the_hosts_in_order_and_what_is_too_many_goes_around() -> None:
    hosts = [Host("a", 2), Host("b", 3)]
    assert [spread(hosts, n) for n in (1, 4, 5, 8)] == [{"a": x, "b": y} for x, y in ((1, 0), (2, 2), (2, 3), (4, 4))]


def test_facts_travel_as_json() -> None:
    import json

    assert of_json(json.loads(json.dumps(to_json(WELL)))) == WELL


def test_a_table_has_a_mark_and_never_a_line_too_long() -> None:
    names = [f"gpu{number:02}.cluster.example.org" for number in range(12)]
    many = [Cell("python", name, "ok", "3.11.7") for name in names] + [Cell("gpus", names[3], "bad", "2", "do")]
    shown = table([*many, Cell("allreduce", "", "ok", "12 ranks, 3.0 s")])
    assert max(map(len, shown.splitlines())) <= 120
    assert [name for name in names if name not in shown] == []
    assert "! 2" in shown
    assert shown.splitlines()[-1] == "allreduce  12 ranks, 3.0 s"
    assert "\033[31m! 2" in table(many, color=True)


NO_GLOO = {"horovod": replace(HOROVOD, gloo=False)}
PROGRAMS = {"horovodrun": "/bin/horovodrun", "mpirun": "/bin/mpirun", "srun": None}


@pytest.mark.parametrize(
    ("wrong", "programs", "slurm", "works", "says"),
    [
        ({}, PROGRAMS, None, "single mirrored gloo mpi mpirun", "srun is not on PATH"),
        ({"usable": 0, "gpus": ()}, PROGRAMS, None, "single gloo mpi mpirun", "here are 0"),
        ({}, {**PROGRAMS, "srun": "/bin/srun"}, None, "single mirrored gloo mpi mpirun", "no allocation"),
        ({}, {**PROGRAMS, "srun": "/bin/srun"}, "none pmi2", "single mirrored gloo mpi mpirun srun", ""),
        (NO_GLOO, {**PROGRAMS, "srun": "/bin/srun"}, "none pmi2", "single mirrored mpi mpirun", "has to have PMIx"),
        (NO_GLOO, {**PROGRAMS, "srun": "/bin/srun"}, "pmix", "single mirrored mpi mpirun srun", ""),
        ({}, {}, None, "single mirrored", "horovodrun is not on PATH"),
        ({"horovod": None}, PROGRAMS, None, "single mirrored", "python launch/install_horovod.py builds it"),
        ({"horovod": replace(HOROVOD, tensorflow="2.20.0")}, PROGRAMS, None, "single mirrored", "not 2.21.0"),
        ({"horovod": replace(HOROVOD, mpi=None)}, PROGRAMS, None, "single mirrored gloo", "has no MPI"),
        ({"horovod": replace(HOROVOD, gloo=False)}, PROGRAMS, None, "single mirrored mpi mpirun", "has no Gloo"),
        ({"mpirun": "Open MPI 5.0.1"}, PROGRAMS, None, "single mirrored gloo", "mpirun is of Open MPI 5.0.1"),
        ({"mpirun": "Open MPI 5.0.1"}, PROGRAMS, None, "single mirrored gloo", "or launch --with mpirun --gloo"),
        ({"mpirun": "MPICH 4.2.1"}, PROGRAMS, None, "single mirrored gloo mpirun", "mpirun is of MPICH 4.2.1"),
        ({"versions": {}}, PROGRAMS, None, "", "tensorflow and keras not installed"),
    ],
)
def test_which_ways_work_on_one_machine(
    wrong: dict[str, Any], programs: dict[str, str | None], slurm: str | None, works: str, says: str
) -> None:
    found = ways(replace(WELL, **wrong), programs, slurm)
    names = ["single", "mirrored", "horovodrun --gloo", "horovodrun --mpi", "mpirun", "srun"]
    assert [way.name for way in found] == names
    assert [way.name.rpartition("--")[2] for way in found if way.works] == works.split()
    assert says in " ".join(way.text for way in found if not way.works)


@pytest.mark.parametrize(
    ("says", "name"),
    [
        ("mpirun (Open MPI) 4.1.8\n\nReport bugs to", "Open MPI 4.1.8"),
        ("Open MPI v4.1.8, package: Open MPI root@host Distribution, ident: 4.1.8", "Open MPI 4.1.8"),
        ("Open MPI v5.0.11, package:", "Open MPI 5.0.11"),
        ("mpirun (Open MPI) 5.0.0rc12", "Open MPI 5.0.0rc12"),
        ("MPICH Version:      4.2.1\nMPICH Release date:", "MPICH 4.2.1"),
        ("HYDRA build details:\n    Version:                                 4.0.2\n", "MPICH 4.0.2"),
    ],
)
def test_what_an_mpi_calls_itself(says: str, name: str) -> None:
    assert short(says) == name


def test_what_nvidia_smi_prints() -> None:
    assert read("NVIDIA H100 80GB HBM3, 550.54.15, 81559\nNVIDIA GH200, 550.54.15, [N/A]\n\n") == (
        CARD,
        Gpu("NVIDIA GH200", "550.54.15", 0),
    )
