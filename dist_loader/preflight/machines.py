"""Cells of what the machines are: GPUs, files, data, space, limits, network."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dist_loader.preflight.cells import Cell, alike, most_common, sized
from dist_loader.preflight.facts import Data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.preflight.facts import Facts

MIB, GIB = 1 << 20, 1 << 30
SHM = "/dev/shm"  # noqa: S108 - only looked at
PER_RANK = 4 * MIB  # of /dev/shm that Open MPI takes
NCCL = GIB  # of /dev/shm, which NVIDIA advises for containers


def gpus(facts: Mapping[str, Facts], ranks: Mapping[str, int], *, oversubscribe: bool) -> list[Cell]:
    """GPUs for every rank, of one kind, with one driver, and a TensorFlow and a Horovod that can use them."""
    any_gpu = any(each.usable for each in facts.values())
    cells = [
        _gpu(host, each, ranks.get(host, 1), any_gpu=any_gpu, oversubscribe=oversubscribe)
        for host, each in facts.items()
    ]
    drivers = {host: each.gpus[0].driver for host, each in facts.items() if each.gpus}
    return cells + alike(
        "driver",
        drivers,
        "NCCL may work all the same; install one driver on all",
        level="warn",
    )


def _gpu(host: str, each: Facts, ranks: int, *, any_gpu: bool, oversubscribe: bool) -> Cell:
    names = sorted({gpu.name for gpu in each.gpus})
    text = f"{each.usable} x {', '.join(names)}" if names and each.usable else str(each.usable or "none")

    def cell(level: str, do: str) -> Cell:
        return Cell("gpus", host, "bad" if level == "bad" else "warn", text, do)

    if each.gpu_problem is not None and not each.usable:
        return cell("warn", f"nvidia-smi on {host}: {each.gpu_problem}")
    if not each.usable:
        if any_gpu:
            return cell("bad", f"{host} has no GPU that may be used, others have: leave it out, or look at nvidia-smi")
        return Cell("gpus", host, "ok", text)
    if each.usable < ranks and not oversubscribe:
        return cell("bad", f"{host} has {each.usable} GPUs for {ranks} ranks: {host}:{each.usable} in -H")
    if each.cpu_only:
        return cell("warn", f"{host} has GPUs, and a TensorFlow without them: pip install 'tensorflow[and-cuda]'")
    if each.horovod is not None and not each.horovod.nccl and ranks > 1:
        return cell("warn", f"Horovod on {host} is built without NCCL: python launch/install_horovod.py --gpu --force")
    return Cell("gpus", host, "ok", text)


def files(facts: Mapping[str, Facts], folder: str, script: str | None) -> list[Cell]:
    """The working folder and the job's file, which every host must have."""
    cells = []
    digest = most_common({host: each.script for host, each in facts.items() if each.script is not None})
    for host, each in facts.items():
        if not each.has_folder:
            do = f"{host} has no folder {folder}: make it, share it, or start the job in a folder that all hosts have"
            cells.append(Cell("script", host, "bad", "no folder", do))
        elif script is not None and each.script is None:
            cells.append(Cell("script", host, "bad", "missing", f"{host} has no {script}: copy it there, or share it"))
        elif script is not None and each.script != digest:
            do = f"{script} on {host} is not the one that the others have: copy it there, or share it"
            cells.append(Cell("script", host, "bad", "another", do))
        elif script is not None:
            cells.append(Cell("script", host, "ok", "the same" if len(facts) > 1 else "there"))
    return cells


def data(facts: Mapping[str, Facts], path: str | None) -> list[Cell]:
    """The data: there, and the same on all hosts. In part, where a host had no time to list all of it."""
    if path is None:
        return []
    seen = {host: each.data or Data(problem=f"{path} was not looked at") for host, each in facts.items()}
    good = {host: each for host, each in seen.items() if each.problem is None}
    whole = bool(good) and all(each.fingerprint for each in good.values())
    marks = {host: _mark(each, good.values(), whole=whole) for host, each in good.items()}
    wanted = most_common(marks)
    cells = []
    for host, each in seen.items():
        if each.problem is not None:
            do = f"{host}: {each.problem}; mount or copy the data there"
            cells.append(Cell("data", host, "bad", "not readable", do))
        elif marks[host] != wanted:
            text = f"{each.samples:,} samples, {each.fingerprint[:8]}" if each.fingerprint and whole else "others"
            do = f"{path} on {host} does not hold the samples that it holds on the others: mount or copy the same there"
            cells.append(Cell("data", host, "bad", text, do))
        elif each.fingerprint and whole:
            cells.append(Cell("data", host, "ok", f"{each.samples:,} samples, {each.fingerprint[:8]}"))
        else:
            do = (
                f"{path} is too large to be listed in time, so not all of it was compared: the names of its class "
                f"folders and of files in {max(0, len(each.parts) - 1)} of them; the training compares the rest"
            )
            cells.append(Cell("data", host, "warn", "in part", do))
    return cells


def _mark(one: Data, all_of_them: object, *, whole: bool) -> tuple[tuple[str, str], ...]:
    """What two hosts must agree on: the fingerprint, or the parts that every host had time for."""
    if whole:
        return (("fingerprint", str(one.fingerprint)),)
    common = set.intersection(*(set(each.parts) for each in all_of_them))  # type: ignore[attr-defined]
    return tuple(sorted((name, digest) for name, digest in one.parts.items() if name in common))


def space(facts: Mapping[str, Facts]) -> list[Cell]:
    """Room for temporary files and in the working folder: the least of both."""
    cells = []
    for host, each in facts.items():
        if not each.free:
            cells.append(Cell("free space", host, "bad", "none", f"{host} has no folder for temporary files: TMPDIR"))
            continue
        folder, least = min(each.free.items(), key=lambda item: item[1])
        do = f"{folder} on {host} has {sized(least)} left: make room there, or set TMPDIR to another folder"
        level = "bad" if least < 16 * MIB else "warn" if least < GIB else "ok"
        cells.append(Cell("free space", host, level, sized(least), "" if level == "ok" else do))  # type: ignore[arg-type]
    return cells


def shared_memory(facts: Mapping[str, Facts], ranks: Mapping[str, int], *, mpi: bool) -> list[Cell]:
    """Open MPI's ranks of one host talk through /dev/shm, and so does NCCL. Too little is a crash of the ranks."""
    cells = []
    for host, each in facts.items():
        count = ranks.get(host, 1)
        need = count * PER_RANK if mpi and count > 1 else 0
        text = "none" if each.shm is None else sized(each.shm)
        more = (
            "docker run --shm-size=1g, in Kubernetes an emptyDir of medium Memory; or mount -o remount,size=1g /dev/shm"
        )
        if (each.shm or 0) < need:
            do = f"{SHM} of {host} has {text} left, {count} ranks of Open MPI take {sized(need)}: {more}"
            cells.append(Cell(SHM, host, "bad", text, do))
        elif (each.shm or 0) < NCCL and each.usable > 1 and count > 1:
            do = f"{SHM} of {host} has {text} left, and NCCL wants about {sized(NCCL)}: {more}"
            cells.append(Cell(SHM, host, "warn", text, do))
        else:
            cells.append(Cell(SHM, host, "ok", text))
    return cells


def limits(facts: Mapping[str, Facts], ranks: int) -> list[Cell]:
    """Open files, for the ranks' connections and the loader; locked memory, which only InfiniBand needs."""
    cells = []
    need = 256 + 4 * ranks
    for host, each in facts.items():
        level, text = ("ok", "unlimited") if each.files >= 1 << 30 else ("ok", f"{each.files:,}")
        do = ""
        if each.files < need:
            level = "bad"
            do = f"{host} allows {each.files} open files, {ranks} ranks take {need}: ulimit -n 65536, or limits.conf"
        cells.append(Cell("open files", host, level, text, do))  # type: ignore[arg-type]
    for host, each in facts.items():
        text = "unlimited" if each.memlock is None else sized(each.memlock)
        if each.infiniband and each.memlock is not None and each.memlock < GIB:
            do = (
                f"{host} has InfiniBand and may lock {text} of memory: ulimit -l unlimited, or limits.conf, for ssh "
                f"logins, too; docker run --ulimit memlock=-1"
            )
            cells.append(Cell("locked memory", host, "warn", text, do))
        else:
            cells.append(Cell("locked memory", host, "ok", text))
    return cells


def network(facts: Mapping[str, Facts], launcher: str, asked: tuple[str, ...]) -> list[Cell]:
    """A network interface that has one name on all hosts; horovodrun cannot do without."""
    # An address that several machines have, such as that of docker0, leads to none of them.
    often = Counter(address for _, address in {(e.host, a) for e in facts.values() for a in e.interfaces.values()})
    names = {
        host: {name for name, address in each.interfaces.items() if often[address] == 1 and address[:4] != "127."}
        for host, each in facts.items()
    }
    cells = []
    if asked:
        for host, each in facts.items():
            here = [name for name in asked if name in each.interfaces]
            do = f"{host} has no network interface {' or '.join(asked)}, but {', '.join(sorted(names[host])) or 'none'}"
            cells.append(Cell("network", host, "ok" if here else "bad", ",".join(here) or "none", "" if here else do))
        return cells
    common = set.intersection(*names.values())
    level = "ok" if common else "bad" if launcher in ("gloo", "horovodrun-mpi") else "warn"
    for host, own in names.items():
        do = (
            f"{host} has {', '.join(sorted(own)) or 'no network interface'}, and no name is on all hosts: "
            f"rename one (ip link set X name Y); with mpirun, name all: --network-interfaces X,Y"
        )
        way = facts[host].reached_by
        text = way if way in common else ",".join(sorted(common or own)) or "none"
        cells.append(Cell("network", host, level, text or "none", "" if common else do))  # type: ignore[arg-type]
    return cells
