"""The systems that this project replaces: docs/from-keras-generators.md, run on real files and real ranks."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.launching import BIN, ROOT, Launch, environment, run
from tests.seed_systems.data import make
from tests.seed_systems.rows import programs

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(280)]

JOB = Path(__file__).parent / "job.py"
ALONE, RANKS, MIRRORED = Launch("python"), Launch("gloo", 2), Launch("python", replicas=2)
# Only one way makes sense for some of them.
WAYS = {"D3": (MIRRORED,), "D2": (RANKS,), "D1": (ALONE, RANKS)}
PROGRAMS = programs()

Outcome = list[dict[str, Any]]  # of each rank


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Launch], tuple[Path, dict[str, Outcome]]]:
    """What came of all programs under a launch, and the folder that they ran in."""

    @cache
    def launched(launch: Launch) -> tuple[Path, dict[str, Outcome]]:
        folder = tmp_path_factory.mktemp(str(launch))
        make(folder)
        names = []
        for name, text in PROGRAMS.items():
            if launch in WAYS.get(name, (ALONE, RANKS, MIRRORED)):
                (folder / f"{name}.py").write_text(text)
                names.append(f"{name}={name}.py")
        strategy = "mirrored" if launch is MIRRORED else "auto"
        command = launch.command(JOB, ".", strategy, *names)
        done = run(["env", f"--chdir={folder}", *command], timeout=250)
        ranks = [json.loads(file.read_text()) for file in sorted(folder.glob("rank-*.json"))]
        assert len(ranks) == launch.ranks, done.stderr[-3000:]
        assert done.returncode == 0, "".join(rank.get(list(rank)[-1], {}).get("error", "") for rank in ranks)
        return folder, {name: [rank[name] for rank in ranks] for name in ranks[0]}

    return launched


def cases() -> list[Any]:
    """Each program with each of its launches."""
    return [
        pytest.param(name, launch, id=f"{name}-{launch}")
        for launch in (ALONE, RANKS, MIRRORED)
        for name in PROGRAMS
        if launch in WAYS.get(name, (ALONE, RANKS, MIRRORED))
    ]


@pytest.mark.parametrize(("name", "launch"), cases())
def test_the_program_trains(name: str, launch: Launch, outcomes: Callable[..., Any]) -> None:
    """Every sample once an epoch, as many steps and the same weights and figures on every rank."""
    ranks = outcomes(launch)[1][name]
    assert len({rank.get("weights") for rank in ranks}) == 1
    assert all(rank.get("finite", True) for rank in ranks)
    assert all(rank.get("history") == ranks[0].get("history") for rank in ranks)
    for of_one in ranks[0]["sequences"]:
        parts = [rank["sequences"][of_one] for rank in ranks]
        assert len({part["steps"] for part in parts}) == 1
        shown = [number for part in parts for step in part["shown"] for number in step]
        if shown:
            assert sorted(shown) == list(range(parts[0]["samples"]))


def test_s0_3_counts_bad_samples_and_shows_them_in_a_file(outcomes: Callable[..., Any]) -> None:
    for launch in (ALONE, RANKS, MIRRORED):
        folder, _ = outcomes(launch)
        lines = [json.loads(line) for line in (folder / "runs/S0.3/bad_samples.jsonl").read_text().splitlines()]
        assert sorted(Path(line["path"]).name for line in lines) == ["000.jpg", "empty.png"]


def test_s3_2_goes_three_times_over_each_host_batch(outcomes: Callable[..., Any]) -> None:
    for launch, steps in ((ALONE, 27), (RANKS, 15), (MIRRORED, 15)):
        assert outcomes(launch)[1]["S3.2"][0]["sequences"]["train"]["steps"] == steps


def test_s3_5_writes_the_best_weights_once(outcomes: Callable[..., Any]) -> None:
    for launch in (ALONE, RANKS, MIRRORED):
        folder, found = outcomes(launch)
        assert (folder / "best.keras").is_file()
        assert "val_loss" in found["S3.5"][0]["history"]


@pytest.mark.parametrize("name", ["D5", "D6", "D8"])
def test_the_launcher_starts_ranks(name: str, tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / "train.py").write_text(PROGRAMS["D2"])
    (command,) = commands(name)
    as_root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    program = [str(BIN / "python"), "-m", "dist_loader"] if command[0] == "dist-loader" else [str(BIN / command[0])]
    done = run(["env", f"--chdir={tmp_path}", *program, *command[1:]], env=environment(**as_root))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("epoch 2/2") == 1


def test_d7_builds_from_what_is_there_for_a_target_that_is_there() -> None:
    """The images themselves are built and run by tests/docker."""
    build, start = commands("D7")
    dockerfile = (ROOT / build[build.index("-f") + 1]).read_text(encoding="utf-8")
    assert f" AS {build[build.index('--target') + 1]}\n" in dockerfile
    assert build[build.index("-t") + 1] in start
    (script,) = [word for word in start if word.endswith(".py")]
    assert (ROOT / script.removeprefix("/opt/dist_loader/")).is_file()


def commands(name: str) -> list[list[str]]:
    """What a row says to type."""
    return [shlex.split(line[2:]) for line in programs("console")[name].splitlines() if line.startswith("$ ")]
