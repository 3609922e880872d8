"""Hosts, from every place where they may be named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.launching.hosts import Host, find_hosts, parse_hostfile, parse_hosts

names = st.from_regex(r"[a-z][a-z0-9-]{0,9}(\.[a-z]{1,5})?", fullmatch=True)
lists = st.dictionaries(names, st.integers(1, 64), min_size=1, max_size=8)


@settings(max_examples=50)
@given(lists)
def test_every_spelling_says_the_same(hosts: dict[str, int]) -> None:
    wanted = tuple(Host(name, slots) for name, slots in hosts.items())
    assert parse_hosts(",".join(f"{name}:{slots}" for name, slots in hosts.items())) == wanted
    for line in ("{} slots={}", "{}:{}", "  {}  slots={} max_slots=99 # said by hand", "{} max-slots=99 slots={}"):
        text = "# all\n\n" + "\n".join(line.format(name, slots) for name, slots in hosts.items())
        assert parse_hostfile(text, "hosts") == wanted
    mcpu = " ".join(f"{name} {slots}" for name, slots in hosts.items())
    assert find_hosts(None, None, {"LSB_MCPU_HOSTS": mcpu}).hosts == wanted
    each = " ".join(name for name, slots in hosts.items() for _ in range(slots))
    assert find_hosts(None, None, {"LSB_HOSTS": each}).hosts == wanted
    slurm = {
        "SLURM_JOB_NODELIST": ",".join(hosts),
        "SLURM_NTASKS": "1",
        "SLURM_TASKS_PER_NODE": ",".join(map(str, hosts.values())),
    }
    assert find_hosts(None, None, slurm).hosts == wanted


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("a", (Host("a"),)),
        ("a,b:2", (Host("a"), Host("b", 2))),
        ("a,a,b,a", (Host("a", 3), Host("b"))),
        ("a:2,a:3", (Host("a", 5),)),
        ("10.0.0.1:4", (Host("10.0.0.1", 4),)),
    ],
)
def test_hosts_of_the_command_line(text: str, hosts: tuple[Host, ...]) -> None:
    assert parse_hosts(text) == hosts


@pytest.mark.parametrize(
    "text", ["", "a:", ":2", "a:x", "a:0", "a:-1", "a:2,", "a b", "-oProxyCommand=x", "a:2:3", "a;b"]
)
def test_what_is_no_host_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="-H"):
        parse_hosts(text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("a slots=x", "'x'"),
        ("a slot=2", "slot=2"),
        ("-x slots=2", "'-x'"),
        ("a slots=0", "'0'"),
        ("a 2", "cannot read '2'"),
    ],
)
def test_a_line_of_a_hostfile_that_cannot_be_read_is_named(line: str, says: str) -> None:
    with pytest.raises(ConfigError, match=f"line 2 of hosts.*{says}"):
        parse_hostfile(f"fine slots=2\n{line}\n", "hosts")


@pytest.mark.parametrize(
    ("env", "hosts"),
    [
        ({"SLURM_TASKS_PER_NODE": "2(x2),1"}, "n08:2 n09:2 login:1"),
        ({"SLURM_NTASKS": None, "SLURM_TASKS_PER_NODE": "16(x3)"}, "n08:1 n09:1 login:1"),  # these are cores
        ({"SLURM_NTASKS": None, "SLURM_GPUS_PER_NODE": "a100:4"}, "n08:4 n09:4 login:4"),
        ({"SLURM_NTASKS": None, "SLURM_GPUS_ON_NODE": "8"}, "n08:8 n09:8 login:8"),
    ],
)
def test_a_slurm_allocation(env: dict[str, str | None], hosts: str) -> None:
    base = {"SLURM_JOB_NODELIST": "n[08-09],login", "SLURM_NTASKS": "5"}
    found = find_hosts(None, None, {name: value for name, value in {**base, **env}.items() if value is not None})
    assert (found.source, found.allocated, " ".join(map(str, found.hosts))) == ("Slurm", True, hosts)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("n1", "n1"),
        ("n[1-3]", "n1 n2 n3"),
        ("n[098-101,7]x", "n098x n099x n100x n101x n7x"),
        ("r[1-2]n[0-1],x", "r1n0 r1n1 r2n0 r2n1 x"),
    ],
)
def test_slurms_short_form_of_names(text: str, names: str) -> None:
    assert [host.name for host in find_hosts(None, None, {"SLURM_JOB_NODELIST": text}).hosts] == names.split()


@pytest.mark.parametrize(
    "env",
    [
        {"SLURM_JOB_NODELIST": "n[1-x]"},
        {"SLURM_JOB_NODELIST": "n1,n2", "SLURM_NTASKS": "2", "SLURM_TASKS_PER_NODE": "2"},
        {"SLURM_JOB_NODELIST": "n1", "SLURM_NTASKS": "2", "SLURM_TASKS_PER_NODE": "two"},
        {"LSB_MCPU_HOSTS": "a 2 b"},
        {"PBS_NODEFILE": "/nowhere/at/all"},
    ],
)
def test_an_allocation_that_cannot_be_read(env: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=next(iter(env)) if "PBS_NODEFILE" in env else "-H"):
        find_hosts(None, None, env)


def test_files_that_name_the_hosts(tmp_path: Path) -> None:
    pbs = tmp_path / "nodes"
    pbs.write_text("a\na\nb\n")
    assert find_hosts(None, None, {"PBS_NODEFILE": str(pbs)}).hosts == (Host("a", 2), Host("b", 1))
    mpi = tmp_path / "hostfile"
    mpi.write_text("a slots=2\n")
    for variable in ("OMPI_MCA_orte_default_hostfile", "PRTE_MCA_prte_default_hostfile", "HYDRA_HOST_FILE"):
        assert find_hosts(None, None, {variable: str(mpi)}).hosts == (Host("a", 2),)
    assert find_hosts(None, str(mpi), {"PBS_NODEFILE": str(pbs)}).hosts == (Host("a", 2),)  # flags come first
    assert find_hosts("c", None, {"PBS_NODEFILE": str(pbs)}).hosts == (Host("c"),)
    with pytest.raises(ConfigError, match="one of them"):
        find_hosts("a", str(mpi), {})
    with pytest.raises(ConfigError, match="names no host"):
        parse_hostfile("# none\n", "hosts")
    assert find_hosts(None, None, {}).hosts == (Host("localhost"),)
