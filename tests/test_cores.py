"""Threads for the cores that a rank may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dist_loader import cores
from dist_loader.cores import cpu_quota, cpuset, reading_threads, threads_for
from dist_loader.world import World

ALL = set(range(64))


@pytest.mark.parametrize(
    ("affinity", "allowed", "quota", "ranks", "threads"),
    [
        (ALL, ALL, None, 1, 64),
        (ALL, ALL, None, 8, 8),
        (set(range(8)), ALL, None, 8, 8),  # each rank bound to its own part
        (set(range(8)), set(range(8)), None, 4, 2),  # all ranks in one container of 8 cores
        ({3}, ALL, None, 4, 1),
        (ALL, ALL, 6.0, 1, 6),
        (ALL, ALL, 6.0, 4, 1),
        (ALL, ALL, 0.5, 1, 1),
        ({0, 1}, {0, 1}, None, 4, 1),
        (set(range(4)), ALL, None, 1, 4),
    ],
)
def test_ranks_share_the_cores(affinity: set, allowed: set, quota: float | None, ranks: int, threads: int) -> None:
    assert threads_for(affinity, allowed, quota, ranks) == threads


@pytest.mark.parametrize(
    ("rank", "launcher", "threads"),
    [
        (set(range(8)), ALL, 8),  # bound by the launcher
        (set(range(8)), set(range(8)), 2),  # taskset -c 0-7 mpirun -np 4 --bind-to none
        ({2, 3}, set(range(8)), 2),  # taskset -c 0-7 mpirun -np 4 --bind-to core
        (set(range(8)), {60, 61}, 8),  # Slurm's daemon may have cores of its own
    ],
)
def test_ranks_that_are_bound_together_share(
    monkeypatch: pytest.MonkeyPatch, rank: set, launcher: set, threads: int
) -> None:
    monkeypatch.setattr(cores, "cpuset", lambda root: ALL)
    monkeypatch.setattr(cores, "cpu_quota", lambda root: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: launcher if process else rank)
    assert reading_threads(World(1, 4, 1, 4)) == threads


def test_the_launcher_is_found_behind_a_script_that_binds_the_rank() -> None:
    all_cores = os.sched_getaffinity(0)
    bind = f"import os, sys; os.sched_setaffinity(0, [{min(all_cores)}]); "
    code = "import os; from dist_loader.cores import *; print(launchers_cores(World.detect()), os.sched_getaffinity(0))"
    script = f"{bind}import subprocess; subprocess.run([sys.executable, '-c', {code!r}], check=True)"
    place = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "4"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=os.environ | place, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{all_cores} { {min(all_cores)} }\n"


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_quota_of_version_2_is_the_least_of_all_groups_around(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/pod/job\n",
            "sys/fs/cgroup/pod/cpu.max": "250000 100000\n",
            "sys/fs/cgroup/pod/job/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/job/cpuset.cpus.effective": "0-3,8\n",
        },
    )
    assert cpu_quota(root) == 2.5
    assert cpuset(root) == {0, 1, 2, 3, 8}


def test_quota_of_version_1(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        **{
            "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/docker/1f\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",  # the container sees its own group as the top
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpuset/cpuset.cpus": "4-5\n",
        },
    )
    assert cpu_quota(root) == 4
    assert cpuset(root) == {4, 5}


def test_nothing_said_is_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert cpuset(tmp_path) is None
    root = write(tmp_path, **{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"})
    assert cpu_quota(root) is None


def test_this_machine_gives_at_least_one() -> None:
    assert reading_threads(World(0, 1, 0, 1)) >= reading_threads(World(0, 4096, 0, 4096)) == 1
