"""The command that starts the ranks, for each launcher: a pure function of what was decided before."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, assert_never

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dist_loader.launching.hosts import Host

Launcher = Literal["local", "gloo", "horovodrun-mpi", "mpirun", "srun"]
Mpi = Literal["Open MPI 4", "Open MPI 5", "MPICH"]

# Open MPI's own connections between hosts: a host that lost power is noticed after 5 + 3 x 2 s, not after 8 minutes.
KEEPALIVE = (("oob_tcp_keepalive_time", "5"), ("oob_tcp_keepalive_intvl", "2"), ("oob_tcp_keepalive_probes", "3"))

# mpirun hands on no variable that it is not told to. These are, and their like; more by -x.
EXPORTED = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX")
EXPORTED_FAMILIES = ("CUDA_", "DIST_LOADER_", "HOROVOD_", "KERAS_", "NCCL_", "OMP_", "TF_", "XLA_")
# What horovodrun tells each single rank must not come from the launch around this one.
_NEVER = re.compile(r"HOROVOD_((LOCAL_|CROSS_)?(RANK|SIZE)|HOSTNAME|GLOO_RENDEZVOUS_.*|CONTROLLER|CPU_OPERATIONS)")


@dataclass(frozen=True)
class Job:
    """What is started where.

    Attributes:
        launcher: "gloo" is horovodrun with Gloo, "horovodrun-mpi" is horovodrun that calls mpirun.
        program: the launcher's program, as found on PATH; empty for "local".
        mpi: whose mpirun it is; None where none is called.
        prefix: the folder of that MPI's bin, lib and so on, for horovodrun to tell mpirun; empty if not known.
        ranks: how many processes.
        hosts: each with its slots.
        rank_command: what each rank runs.
        exported: names of the environment variables that the ranks get.
        interfaces: names of the network interfaces to use; none: the launcher decides.
        oversubscribe: more ranks than slots are wanted.
        as_root: this user is root, for which Open MPI wants to be told so.
        options: of the launcher, handed on as they are.
        gloo: the ranks of mpirun or srun meet by Gloo, with the help of `launch`.
        cores: of each rank, for srun, which from Slurm 22.05 on does not take this from the job around it.
    """

    launcher: Launcher
    program: str
    mpi: Mpi | None
    ranks: int
    hosts: tuple[Host, ...]
    rank_command: tuple[str, ...]
    exported: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    oversubscribe: bool = False
    as_root: bool = False
    options: tuple[str, ...] = ()
    gloo: bool = False
    prefix: str = ""
    cores: str | None = None


def command(job: Job) -> list[str]:
    """The arguments of the process to start."""
    match job.launcher:
        case "local":
            return list(job.rank_command)
        case "gloo" | "horovodrun-mpi":
            return _horovodrun(job)
        case "mpirun":
            return _mpich(job) if job.mpi == "MPICH" else _open_mpi(job)
        case "srun":
            return _srun(job)
    assert_never(job.launcher)


def _horovodrun(job: Job) -> list[str]:
    # --disable-cache: a host that was checked an hour ago may be gone, and nothing is written to the home folder.
    done = [job.program, "--gloo" if job.launcher == "gloo" else "--mpi", "--disable-cache", "-np", str(job.ranks)]
    done += ["-H", _host_list(_widened(job))]
    if job.interfaces:
        done += ["--network-interfaces", ",".join(job.interfaces)]
    if job.launcher == "horovodrun-mpi":
        if job.mpi == "Open MPI 5":  # which does not know horovodrun's own spelling, with one dash
            done.append("--binding-args=--bind-to none --map-by slot")
        if job.mpi != "MPICH":
            # By its whole path, mpirun would tell the other hosts where it lies; horovodrun calls it by its name.
            prefix = ["--prefix", shlex.quote(job.prefix)] if job.prefix else []
            done.append(f"--mpi-args={' '.join([*_keepalive(job), *prefix])}")
    return [*done, *job.options, *job.rank_command]


def _open_mpi(job: Job) -> list[str]:
    five = job.mpi == "Open MPI 5"
    # Unless told not to, it binds two ranks to ONE core.
    done = [job.program, "--bind-to", "none", "--map-by", "slot"]
    if job.oversubscribe and five:
        done[-1] = "slot:oversubscribe"
    elif job.oversubscribe:
        done.append("--oversubscribe")
    if job.as_root:
        done.append("--allow-run-as-root")
    done += ["--mca", "pml", "ob1", "--mca", "btl", "^openib"]  # TCP and shared memory: what Horovod is tested on
    if job.interfaces:
        names = ",".join(job.interfaces)
        done += ["--mca", "btl_tcp_if_include", names]
        done += ["--prtemca", "prte_if_include", names] if five else ["--mca", "oob_tcp_if_include", names]
        done += ["-x", f"NCCL_SOCKET_IFNAME={names}"]
    done += _keepalive(job)
    done += ["--output", "tag"] if five else ["--tag-output"]
    done += ["-np", str(job.ranks), "-H", _host_list(job.hosts)]
    for name in job.exported:
        if name != "NCCL_SOCKET_IFNAME" or not job.interfaces:
            done += ["-x", name]
    return [*done, *job.options, *job.rank_command]


def _keepalive(job: Job) -> list[str]:
    word = "--prtemca" if job.mpi == "Open MPI 5" else "--mca"
    return [part for name, value in KEEPALIVE for part in (word, name, value)]


def _mpich(job: Job) -> list[str]:
    done = [job.program, "-bind-to", "none", "-prepend-rank", "-genvall"]
    if job.interfaces:
        done += ["-iface", job.interfaces[0], "-genv", "NCCL_SOCKET_IFNAME", ",".join(job.interfaces)]
    return [*done, "-n", str(job.ranks), "-hosts", _host_list(_widened(job)), *job.options, *job.rank_command]


def _srun(job: Job) -> list[str]:
    most = max(host.slots or 1 for host in job.hosts)
    done = [job.program, f"--nodes={len(job.hosts)}", f"--ntasks={job.ranks}", f"--ntasks-per-node={most}"]
    done += [f"--nodelist={','.join(host.name for host in job.hosts)}", "--mpi=none" if job.gloo else "--mpi=pmix"]
    # --export: a job submitted with --export=NONE would hand that on.
    done += ["--cpu-bind=none", "--kill-on-bad-exit=1", "--label", "--export=ALL"]
    if job.cores is not None:
        done.append(f"--cpus-per-task={job.cores}")
    if job.oversubscribe:
        done.append("--overcommit")
    return [*done, *job.options, *job.rank_command]


def _host_list(hosts: Sequence[Host]) -> str:
    return ",".join(map(str, hosts))


def _widened(job: Job) -> tuple[Host, ...]:
    """The hosts, with so many slots more that all ranks fit: for launchers that know no oversubscribing."""
    hosts = list(job.hosts)
    missing = job.ranks - sum(host.slots or 1 for host in hosts)
    if missing <= 0 or not job.oversubscribe:
        return job.hosts
    each, rest = divmod(missing, len(hosts))
    return tuple(type(host)(host.name, (host.slots or 1) + each + (number < rest)) for number, host in enumerate(hosts))


def exported(names: Iterable[str], more: Iterable[str] = ()) -> tuple[str, ...]:
    """Which variables of an environment the ranks get where the launcher must be told each of them."""
    wanted = {n for n in names if (n in EXPORTED or n.startswith(EXPORTED_FAMILIES)) and not _NEVER.fullmatch(n)}
    return tuple(sorted(wanted | set(more)))


def mpi_of(version: str) -> Mpi:
    """Whose mpirun it is, from what `mpirun --version` prints.

    Raises:
        ConfigError: neither Open MPI 4 or 5 nor MPICH.
    """
    open_mpi = re.search(r"\(Open MPI\) (\d+)\.", version)
    if open_mpi and open_mpi[1] in "45":
        return "Open MPI 4" if open_mpi[1] == "4" else "Open MPI 5"
    if "HYDRA" in version and "Intel" not in version:
        return "MPICH"
    first = next(iter(version.strip().splitlines()), "nothing")
    raise ConfigError(f"mpirun is neither Open MPI 4 or 5 nor MPICH (it says {first!r}); use --with horovodrun --gloo")


def rank_command(
    python: str, script: Sequence[str], log_dir: str | None, gloo: Sequence[str] | None = None
) -> tuple[str, ...]:
    """What each rank runs: the script under `dist_loader.launching.rank`, which tells how it ended.

    The arguments go through launchers and shells. Those that one of them would change (mpirun and srun take ":" for
    the start of another program; some lose empty arguments or line breaks) travel as one JSON text.

    Args:
        python: the Python that runs it.
        script: with its arguments.
        log_dir: for what the ranks write.
        gloo: the ranks meet by Gloo with the help of `launch`, over these network interfaces, or the one towards it.
    """
    done = [python, "-m", "dist_loader.launching.rank"]
    if log_dir is not None:
        done.append(f"--log-dir={log_dir}")
    if gloo is not None:
        done.append(f"--gloo={gloo[0]}" if gloo else "--gloo")
    if all(re.fullmatch(r"[ -~]+", part) and part != ":" for part in script):
        return (*done, "--", *script)
    return (*done, f"--json={json.dumps(list(script))}")
