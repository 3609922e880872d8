"""Hosts that are no machines: network namespaces with ssh between them; and a job that ends alike on any of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dist_loader.training.checkpoint import journal
from tests.distributed.launching import ROOT, Launch, environment, run

HERE = ROOT / "tests" / "distributed"
TRAIN = ROOT / "launch" / "train.py"

EPOCHS, STEPS, BATCH = 30, 5, 12
# Without batch normalisation, nothing depends on how many ranks share a batch.
MODEL = ("--size", "8", "--model", "plain", "--lr", "0.01")
OPTIONS = (*MODEL, "--epochs", str(EPOCHS), "--global-batch", str(BATCH), "--seed", "1")

FUNCTIONS = """
set -u
wait_for() { # FILE TEXT [TIMES]: until the file has so many lines with the text; says how many seconds that took
    local began=$(date +%s%N)
    until (($(grep -cs -- "$2" "$1") >= ${3:-1})); do
        if (($(date +%s%N) - began > 90 * 10**9)); then echo "90 s without '$2' in $1" >&2; exit 1; fi
        sleep 0.1
    done
    echo $((($(date +%s%N) - began) / 10**9))
}
cd "$1"; shift
"""


def on_hosts(hosts: int, script: str, folder: Path, *arguments: str, timeout: int, slurm: bool = False) -> None:
    """Run a bash script in a folder with a number of hosts, hostA, hostB, ... (`multihost.sh --help` tells the rest).

    Its arguments are $1, $2, ...; a Slurm over the hosts is there if asked for. Skips the test where this cannot be.
    """
    cluster = ["bash", str(HERE / "multihost.sh"), "-n", str(hosts), "-t", str(timeout), "--"]
    if slurm:
        cluster.append(str(HERE / "slurm.sh"))
    done = subprocess.run(
        [*cluster, "bash", "-c", FUNCTIONS + script, "script", str(folder), *arguments],
        env=environment(TEST_MARK=str(folder), TMPDIR=str(folder)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout + 30,
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    if done.returncode:
        written = "".join(f"\n{path.name}:\n{path.read_text()[-3000:]}" for path in sorted(folder.glob("*.log")))
        pytest.fail(f"exit code {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}{written}")


def trained_alone(images: Path, once: Callable) -> Path:
    """The run folder of the same job in one process."""

    def train(folder: Path) -> Path:
        command = Launch("python").command(TRAIN, "--data", images, "--run-dir", folder, *OPTIONS)
        done = run([*command, "--device-batch", str(BATCH)])
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return once("alone", train)


def assert_every_step_is_committed_once(run_dir: Path, sizes: set[int]) -> None:
    """On worlds of these sizes, each of them."""
    lines = journal.read(run_dir / "checkpoints")
    steps = [(line["epoch"], line["first"] + more) for line in lines for more in range(line["steps"])]
    assert steps == [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    assert {line["world_size"] for line in lines} == sizes


def assert_same_end(run_dir: Path, expected: Path) -> None:
    """Figures, weights and momentum, as far as the order in which floats are added allows."""
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (run_dir, expected))
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-5), name
    last = f"epoch-{EPOCHS:05}*.npz"
    ours, theirs = (np.load(next((folder / "checkpoints").glob(last))) for folder in (run_dir, expected))
    shared = [name for name in theirs.files if name.startswith("shared-")]
    assert len(shared) > 16
    for name in shared:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5, err_msg=name)
