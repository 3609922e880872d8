"""Which hosts a job may use: from the command line, a hostfile, or the allocation of Slurm, PBS or LSF."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True)
class Host:
    """A machine that ranks can run on.

    Attributes:
        name: as ssh and the launchers know it.
        slots: how many ranks it takes; None where nobody said.
    """

    name: str
    slots: int | None = None

    def __str__(self) -> str:
        return self.name if self.slots is None else f"{self.name}:{self.slots}"


@dataclass(frozen=True)
class Hosts:
    """The hosts of a job, each once, and where they were found.

    Attributes:
        source: "-H", the hostfile's path, "Slurm", "PBS", "LSF" or "this machine".
        hosts: in the order in which they were named, which is the order of the ranks.
        allocated: a batch system gave them. It counts their slots itself, and need not allow ssh to them.
    """

    source: str
    hosts: tuple[Host, ...]
    allocated: bool = False


def find_hosts(flag: str | None, hostfile: str | None, env: Mapping[str, str]) -> Hosts:
    """The hosts by the first of these: -H, --hostfile, Slurm, PBS, LSF, a hostfile that MPI was told, this machine.

    Args:
        flag: the value of -H.
        hostfile: the value of --hostfile.
        env: the environment, where batch systems write.

    Raises:
        ConfigError: what was found cannot be read, or both flags were given.
    """
    if flag is not None and hostfile is not None:
        raise ConfigError("-H and --hostfile both name the hosts; give one of them")
    if flag is not None:
        return Hosts("-H", parse_hosts(flag))
    if hostfile is not None:
        return Hosts(hostfile, parse_hostfile(_read(hostfile, "--hostfile"), hostfile))
    if "SLURM_JOB_NODELIST" in env:
        return Hosts("Slurm", slurm_hosts(env), allocated=True)
    if "PBS_NODEFILE" in env:
        listed = _read(env["PBS_NODEFILE"], "PBS_NODEFILE").split()
        return Hosts("PBS", _merged(Host(_name(name, "PBS_NODEFILE"), 1) for name in listed), allocated=True)
    if "LSB_MCPU_HOSTS" in env or "LSB_HOSTS" in env:
        return Hosts("LSF", lsf_hosts(env), allocated=True)
    for variable in _DEFAULT_HOSTFILES:
        if env.get(variable):
            return Hosts(env[variable], parse_hostfile(_read(env[variable], variable), env[variable]))
    return Hosts("this machine", (Host("localhost"),))


# Where the Kubernetes MPI operator, and whoever sets up a cluster, tell Open MPI 4, Open MPI 5 and MPICH the hosts.
_DEFAULT_HOSTFILES = ("OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile", "HYDRA_HOST_FILE")


def parse_hosts(text: str) -> tuple[Host, ...]:
    """The hosts of `-H hostA:2,hostB:2`; a host without a number leaves it open.

    Raises:
        ConfigError: it does not read like that.
    """
    hosts = []
    for entry in text.split(","):
        name, colon, slots = entry.strip().partition(":")
        where = f"-H {text!r}"
        hosts.append(Host(_name(name, where), _slots(slots, where) if colon else None))
    return _merged(hosts)


def parse_hostfile(text: str, path: str) -> tuple[Host, ...]:
    """The hosts of a hostfile, a host a line: `hostA slots=2` (Open MPI, Horovod) or `hostA:2` (MPICH); # is a comment.

    Raises:
        ConfigError: a line does not read like that, or there is none.
    """
    hosts = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split("#", 1)[0].split()
        if not words:
            continue
        where = f"line {number} of {path}"
        name, colon, slots = words[0].partition(":")
        count = _slots(slots, where) if colon else None
        for word in words[1:]:
            key, equals, value = word.partition("=")
            if not equals or key not in ("slots", "max_slots", "max-slots"):
                raise ConfigError(f"{where}: cannot read {word!r}; a line is a host and its ranks: hostA slots=2")
            if key == "slots":
                count = _slots(value, where)
        hosts.append(Host(_name(name, where), count))
    if not hosts:
        raise ConfigError(f"{path} names no host; a line is a host and its ranks: hostA slots=2")
    return _merged(hosts)


def slurm_hosts(env: Mapping[str, str]) -> tuple[Host, ...]:
    """The nodes of a Slurm allocation, with the tasks asked for, else with the GPUs, else with one rank each."""
    names = expand_nodelist(env["SLURM_JOB_NODELIST"])
    per_node = env.get("SLURM_TASKS_PER_NODE", "")
    if "SLURM_NTASKS" in env and per_node:  # without the first, the second counts cores
        counts = expand_counts(per_node)
        if len(counts) != len(names):
            raise ConfigError(
                f"Slurm names {len(names)} nodes in SLURM_JOB_NODELIST={env['SLURM_JOB_NODELIST']!r} and "
                f"{len(counts)} in SLURM_TASKS_PER_NODE={per_node!r}; say which to use with -H"
            )
    else:
        gpus = env.get("SLURM_GPUS_PER_NODE") or env.get("SLURM_GPUS_ON_NODE") or "1"
        counts = [max(1, _slots(gpus.rpartition(":")[2], f"Slurm's number of GPUs, {gpus!r}"))] * len(names)
    return _merged(Host(_name(name, "SLURM_JOB_NODELIST"), count) for name, count in zip(names, counts, strict=True))


def lsf_hosts(env: Mapping[str, str]) -> tuple[Host, ...]:
    """The hosts of an LSF job: `LSB_MCPU_HOSTS="hostA 2 hostB 2"`, else `LSB_HOSTS="hostA hostA hostB hostB"`."""
    if "LSB_MCPU_HOSTS" not in env:
        return _merged(Host(_name(name, "LSB_HOSTS"), 1) for name in env["LSB_HOSTS"].split())
    words = env["LSB_MCPU_HOSTS"].split()
    where = f"LSB_MCPU_HOSTS={env['LSB_MCPU_HOSTS']!r}"
    if len(words) % 2:
        raise ConfigError(f"{where} is not a list of hosts and slots; say which hosts to use with -H")
    return _merged(Host(_name(n, where), _slots(s, where)) for n, s in zip(words[::2], words[1::2], strict=True))


def expand_nodelist(text: str) -> list[str]:
    """Slurm's short form of names: "gpu[01-03,7],login" is gpu01, gpu02, gpu03, gpu7, login."""
    names: list[str] = []
    for entry in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        parts: list[list[str]] = []
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", entry):
            parts.append([literal] if literal else [n for one in ranges.split(",") for n in _numbers(one, text)])
        names += ("".join(parts) for parts in itertools.product(*parts))
    return names


def _numbers(text: str, whole: str) -> list[str]:
    """The numbers of "01-03", with their leading zeros."""
    match = re.fullmatch(r"([0-9]{1,9})(?:-([0-9]{1,9}))?", text)
    if match is None:
        raise ConfigError(f"cannot read Slurm's list of nodes {whole!r}; say which hosts to use with -H")
    first, last = match[1], match[2] or match[1]
    return [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]


def expand_counts(text: str) -> list[int]:
    """Slurm's short form of numbers per node: "2(x3),1" is 2, 2, 2, 1."""
    counts: list[int] = []
    for entry in text.split(","):
        match = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,6})\))?", entry.strip())
        if match is None:
            raise ConfigError(f"cannot read Slurm's tasks per node {text!r}; say which hosts to use with -H")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _merged(hosts: Iterable[Host]) -> tuple[Host, ...]:
    """Each host once. One that is named again has the slots of both; named without a number, it counts once a time."""
    slots: dict[str, int | None] = {}
    for host in hosts:
        if host.name in slots:
            slots[host.name] = (slots[host.name] or 1) + (host.slots or 1)
        else:
            slots[host.name] = host.slots
    return tuple(Host(name, count) for name, count in slots.items())


def _name(text: str, where: str) -> str:
    # Never one that begins with a dash: ssh would take it for an option.
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", text) is None:
        raise ConfigError(f"{where}: {text!r} is no host name; hosts are named as in hostA:2,hostB:2")
    return text


def _slots(text: str, where: str) -> int:
    if re.fullmatch(r"[0-9]{1,6}", text) is None or int(text) < 1:
        raise ConfigError(f"{where}: {text!r} is no number of ranks, which is 1 or more, as in hostA:2")
    return int(text)


def _read(path: str, where: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
