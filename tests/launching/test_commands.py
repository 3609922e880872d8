"""The commands that start the ranks."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.launching.commands import Job, command, exported, mpi_of, rank_command
from dist_loader.launching.hosts import Host
from dist_loader.launching.rank import read_options

JOB = Job("mpirun", "mpirun", "Open MPI 4", 4, (Host("a", 2), Host("b", 2)), ("python", "train.py"), ("PATH", "TF_X"))
KEEPALIVE = {"oob_tcp_keepalive_time": "5", "oob_tcp_keepalive_intvl": "2", "oob_tcp_keepalive_probes": "3"}
# What a file name or an argument can be: any characters but NUL, and bytes that are no text.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from(":-'\" \n\udcff"))
scripts = st.lists(words, max_size=6).map(lambda more: ["train.py", *more])


def pairs(arguments: list[str], flag: str) -> dict[str, str]:
    """NAME and VALUE of every `FLAG NAME VALUE`."""
    return {arguments[n + 1]: arguments[n + 2] for n, word in enumerate(arguments) if word == flag}


def after(arguments: list[str], flag: str) -> list[str]:
    return [arguments[n + 1] for n, word in enumerate(arguments) if word == flag]


@given(scripts)
@example(["train.py", ":"])
def test_arguments_reach_the_script_as_they_are(script: list[str]) -> None:
    whole = rank_command("python", script, "a log")
    assert whole[:3] == ("python", "-m", "dist_loader.launching.rank")
    options = read_options(whole[3:])
    assert (list(options.command), options.log_dir) == (script, "a log")
    # No launcher takes a part for the start of another program, or loses it.
    assert all(part.isascii() and part.isprintable() and part not in ("", ":") for part in whole)


def test_arguments_survive_the_shell_at_the_other_end_of_ssh() -> None:
    script = [
        "train.py",
        "a b",
        "'",
        '"',
        "$HOME",
        "`id`",
        "*",
        "\\",
        "--",
        "-np",
        "",
        ":",
        "x\ny",
        "\u00e4",
        "!",
        "~",
        "#",
    ]
    show = (sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))")
    there = shlex.join([*show, *rank_command("python", script, None)[3:]])
    heard = json.loads(subprocess.run(["sh", "-c", there], capture_output=True, text=True, timeout=20).stdout)
    assert list(read_options(heard).command) == script


@pytest.mark.parametrize("ranks", [1, 3, 4, 9])
@pytest.mark.parametrize("interfaces", [(), ("eth0",), ("eth0", "eth1")])
@pytest.mark.parametrize("oversubscribe", [False, True])
@pytest.mark.parametrize("as_root", [False, True])
def test_open_mpi(ranks: int, interfaces: tuple[str, ...], oversubscribe: bool, as_root: bool) -> None:
    job = replace(JOB, ranks=ranks, interfaces=interfaces, oversubscribe=oversubscribe, as_root=as_root)
    four, five = command(job), command(replace(job, mpi="Open MPI 5"))
    for arguments in (four, five):
        assert arguments[0] == "mpirun"
        assert arguments[-2:] == ["python", "train.py"]
        assert after(arguments, "--bind-to") == ["none"]
        assert after(arguments, "-np") == [str(ranks)]
        assert after(arguments, "-H") == ["a:2,b:2"]
        assert {"PATH", "TF_X"} <= set(after(arguments, "-x"))
        assert ("--allow-run-as-root" in arguments) == as_root
        names = ",".join(interfaces)
        assert pairs(arguments, "--mca").get("btl_tcp_if_include", "") == names
        assert (f"NCCL_SOCKET_IFNAME={names}" in after(arguments, "-x")) == bool(interfaces)
    assert KEEPALIVE.items() <= pairs(four, "--mca").items()
    assert KEEPALIVE.items() <= pairs(five, "--prtemca").items()
    assert ("--oversubscribe" in four) == oversubscribe
    assert after(five, "--map-by") == ["slot:oversubscribe" if oversubscribe else "slot"]
    assert ("--tag-output" in four, after(five, "--output")) == (True, ["tag"])


def test_mpich() -> None:
    arguments = command(replace(JOB, mpi="MPICH", interfaces=("eth0",)))
    assert (after(arguments, "-n"), after(arguments, "-hosts"), after(arguments, "-iface")) == (
        ["4"],
        ["a:2,b:2"],
        ["eth0"],
    )
    assert {"-genvall", "-prepend-rank"} <= set(arguments)
    wide = command(replace(JOB, mpi="MPICH", ranks=7, oversubscribe=True))
    assert after(wide, "-hosts") == ["a:4,b:3"]


def test_horovodrun() -> None:
    gloo = replace(JOB, launcher="gloo", program="horovodrun", mpi=None)
    assert shlex.join(command(gloo)) == "horovodrun --gloo --disable-cache -np 4 -H a:2,b:2 python train.py"
    assert after(command(replace(gloo, interfaces=("eth0", "eth1"))), "--network-interfaces") == ["eth0,eth1"]
    assert after(command(replace(gloo, ranks=5, oversubscribe=True)), "-H") == ["a:3,b:2"]
    four = command(replace(gloo, launcher="horovodrun-mpi", mpi="Open MPI 4"))
    five = command(replace(gloo, launcher="horovodrun-mpi", mpi="Open MPI 5"))
    assert "--mpi" in four
    assert any(word.startswith("--mpi-args=--mca oob_tcp_keepalive_time 5") for word in four)
    assert "--binding-args=--bind-to none --map-by slot" in five
    # Called by its name alone, as horovodrun does it, an mpirun from pip is not found whole on the other hosts.
    placed = command(replace(gloo, launcher="horovodrun-mpi", mpi="Open MPI 4", prefix="/opt/my mpi"))
    assert any(word.endswith(" --prefix '/opt/my mpi'") for word in placed if word.startswith("--mpi-args="))
    assert any(word.startswith("--mpi-args=--prtemca oob_tcp_keepalive_time 5") for word in five)


def test_srun() -> None:
    arguments = command(replace(JOB, launcher="srun", program="srun", options=("--gpus-per-task=1",)))
    assert shlex.join(arguments) == (
        "srun --nodes=2 --ntasks=4 --ntasks-per-node=2 --nodelist=a,b --mpi=pmix --cpu-bind=none --kill-on-bad-exit=1 "
        "--label --export=ALL --gpus-per-task=1 python train.py"
    )
    assert "--overcommit" in command(replace(JOB, launcher="srun", oversubscribe=True))
    assert "--cpus-per-task=8" in command(replace(JOB, launcher="srun", cores="8"))
    assert {"--mpi=none"} == {word for word in command(replace(JOB, launcher="srun", gloo=True)) if "--mpi" in word}


def test_which_variables_the_ranks_get() -> None:
    env = [
        "PATH",
        "HOME",
        "TF_CPP",
        "NCCL_DEBUG",
        "HOROVOD_FUSION_THRESHOLD",
        "HOROVOD_RANK",
        "HOROVOD_LOCAL_SIZE",
        "SECRET",
    ]
    assert exported(env, ["MINE"]) == ("HOROVOD_FUSION_THRESHOLD", "MINE", "NCCL_DEBUG", "PATH", "TF_CPP")


@pytest.mark.parametrize(
    ("version", "whose"),
    [
        ("mpirun (Open MPI) 4.1.8\n\nReport bugs", "Open MPI 4"),
        ("mpirun (Open MPI) 5.0.11\n", "Open MPI 5"),
        ("HYDRA build details:\n    Version:  4.3.2\n", "MPICH"),
    ],
)
def test_whose_mpirun_it_is(version: str, whose: str) -> None:
    assert mpi_of(version) == whose


@pytest.mark.parametrize("version", ["", "Intel(R) MPI Library for Linux* OS, Version 2021", "mpirun (Open MPI) 3.1.0"])
def test_an_mpirun_that_is_not_known(version: str) -> None:
    with pytest.raises(ConfigError, match="--with horovodrun --gloo"):
        mpi_of(version)
