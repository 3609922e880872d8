"""How many processor cores this rank may use: what the system allows, shared with the other ranks of the host."""

from __future__ import annotations

import os
from pathlib import Path

from dist_loader.errors import ConfigError
from dist_loader.world import World


def reading_threads(world: World) -> int:
    """A thread for each core that is this rank's own, at least one."""
    here, affinity = Path("/"), os.sched_getaffinity(0)
    allowed = cpuset(here) or set(range(os.cpu_count() or 1))
    if world.local_size > 1 and affinity <= (launcher := launchers_cores(world)):
        # `taskset -c 0-7 mpirun -np 4 ...` binds all ranks together, and none to its own part.
        allowed = allowed & launcher
    return threads_for(affinity, allowed, cpu_quota(here), world.local_size)


def launchers_cores(world: World) -> set[int]:
    """Numbers of the cores of the process that started this rank, maybe by a script; none if it is not to be found."""
    process = os.getppid()
    try:
        while process and _is_rank(process, world):
            status = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
            process = int(status.rpartition(")")[2].split()[1])
        return os.sched_getaffinity(process) if process else set()
    except OSError:  # it has ended
        return set()


def _is_rank(process: int, world: World) -> bool:
    """Whether a process has the variables of a rank: a script around it has them, a launcher has not."""
    try:
        lines = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        return World.detect(dict(os.fsdecode(line).split("=", 1) for line in lines if b"=" in line)) == world
    except (OSError, ConfigError):  # of another user, or of no rank
        return False


def threads_for(affinity: set[int], allowed: set[int], quota: float | None, ranks: int) -> int:
    """A rank's share of the cores.

    Args:
        affinity: numbers of the cores that this process may run on.
        allowed: of the cores that the container, or the host, has, and that the launcher may run on.
        quota: how many cores' time the container may use; None: no limit.
        ranks: processes that share it.
    """
    # A launcher that binds each rank to cores of its own leaves less than the container has; else all ranks share them.
    bound = ranks > 1 and len(affinity) * ranks <= len(allowed) and affinity < allowed
    own = len(affinity) if bound else len(affinity) // ranks
    return max(1, own if quota is None else min(own, int(quota / ranks)))


def cpu_quota(root: Path) -> float | None:
    """How many cores' time the control groups of this process allow (versions 1 and 2); None: no limit.

    Args:
        root: of the file system; another one in tests.
    """
    limits = []
    for folder in _groups(root, "cpu"):
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                period = (folder / "cpu.cfs_period_us").read_text()
            if quota not in ("max", "-1"):
                limits.append(int(quota) / int(period))
        except (OSError, ValueError):
            continue
    return min(limits, default=None)


def cpuset(root: Path) -> set[int] | None:
    """Numbers of the cores that the control groups of this process allow; None: not said."""
    for folder in _groups(root, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            try:
                text = (folder / name).read_text().strip()
                return {core for part in text.split(",") if part for core in _range(part)} or None
            except (OSError, ValueError):
                continue
    return None


def _groups(root: Path, controller: str) -> list[Path]:
    """Folders of this process's control group and of those around it, innermost first."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found: list[Path] = []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controllers
            if not top.exists():
                top = root / "sys/fs/cgroup" / controller
        else:
            continue
        inner = Path(path.lstrip("/"))
        # Inside of a container the path may be the host's, which is not there; the top is the container's then.
        found += [top / at for at in (inner, *inner.parents) if (top / at).is_dir()]
    return found


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)
