"""What a host tells about itself, as values that travel as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """A GPU as nvidia-smi shows it.

    Attributes:
        name: its model.
        driver: version of the driver.
        mib: its memory.
    """

    name: str
    driver: str
    mib: int


@dataclass(frozen=True)
class Horovod:
    """How the installed Horovod was built.

    Attributes:
        tensorflow: the version of TensorFlow that it was built against; empty where it does not say.
        gloo: it has Gloo.
        mpi: what the MPI library that it is linked to calls itself, such as "Open MPI 4.1.8"; None: it has no MPI.
        nccl: it has NCCL.
        missing: shared libraries that cannot be found, by name. Those of TensorFlow do not count: Python loads them.
    """

    tensorflow: str = ""
    gloo: bool = False
    mpi: str | None = None
    nccl: bool = False
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Data:
    """What a host sees of the data.

    Attributes:
        problem: why it cannot be read; None if it can.
        fingerprint: of the whole index (`Index.fingerprint`); None if the time was too short for it.
        samples: how many; None likewise.
        parts: digests of what there was time for, by name: the class folders' names, and the files of some of them.
    """

    problem: str | None = None
    fingerprint: str | None = None
    samples: int | None = None
    parts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """What a host is asked to look at.

    Attributes:
        folder: the working folder of the job, absolute.
        script: the job's file, absolute; None: there is none.
        data: a folder of class folders or a saved index, absolute; None: there is none.
        mpirun: its path, where the launcher needs one.
        seconds: for the data.
    """

    folder: str
    script: str | None = None
    data: str | None = None
    mpirun: str | None = None
    seconds: float = 4.0


@dataclass(frozen=True)
class Facts:
    """One host.

    Attributes:
        host: its own name; in Slurm, that of the node.
        python: its version.
        versions: of installed packages, by name ("tensorflow" whatever its distribution is called).
        cpu_only: the TensorFlow is one without support for GPUs.
        gpus: those that nvidia-smi shows.
        usable: how many of them a job may use (CUDA_VISIBLE_DEVICES).
        gpu_problem: what nvidia-smi says instead; None if nothing, or if it is not installed.
        horovod: how it was built; None if it is not installed.
        mpirun: what the mpirun that was asked for calls itself, such as "Open MPI 4.1.8"; None if it is not there.
        shm: free bytes of /dev/shm; None if there is none.
        free: free bytes, by folder.
        memlock: bytes of memory that may be locked; None: unlimited.
        files: how many files may be open.
        infiniband: there is such a network card.
        interfaces: IPv4 addresses, by name of the network interface.
        reached_by: the interface of this host that ssh came in by; None if that is not known.
        client: the address that ssh came from; None likewise.
        has_folder: the job's working folder is there.
        script: digest of the job's file; None if it is not there.
        data: what it sees of the data; None if nobody asked.
        clock: seconds since 1970 by its clock, when it began to look and when it was done.
    """

    host: str
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    cpu_only: bool = False
    gpus: tuple[Gpu, ...] = ()
    usable: int = 0
    gpu_problem: str | None = None
    horovod: Horovod | None = None
    mpirun: str | None = None
    shm: int | None = None
    free: dict[str, int] = field(default_factory=dict)
    memlock: int | None = None
    files: int = 1 << 20
    infiniband: bool = False
    interfaces: dict[str, str] = field(default_factory=dict)
    reached_by: str | None = None
    client: str | None = None
    has_folder: bool = True
    script: str | None = None
    data: Data | None = None
    clock: tuple[float, float] = (0.0, 0.0)


def to_json(facts: Facts) -> dict[str, Any]:
    """As plain objects."""
    return asdict(facts)


def of_json(said: dict[str, Any]) -> Facts:
    """The inverse of `to_json`.

    Raises:
        TypeError: it is of another version of this package.
    """
    horovod, data = said.get("horovod"), said.get("data")
    if horovod is not None:
        horovod = Horovod(**{**horovod, "missing": tuple(horovod["missing"])})
    return Facts(
        **{
            **said,
            "gpus": tuple(Gpu(**gpu) for gpu in said["gpus"]),
            "horovod": horovod,
            "data": None if data is None else Data(**data),
            "clock": tuple(said["clock"]),
        }
    )
