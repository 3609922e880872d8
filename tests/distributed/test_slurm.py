"""The recipe for Slurm, on a real one of two nodes: whatever ends a job, it goes on by itself, until it is given up."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distributed.cluster import (
    OPTIONS,
    assert_every_step_is_committed_once,
    assert_same_end,
    on_hosts,
    trained_alone,
)
from tests.distributed.launching import ROOT
from tests.launching.jobs import processes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(500)]

# A job that takes no time to start. Rank 1 fails in its first start.
LIGHT = """
import os, signal, sys, time
from dist_loader import World
world, start = World.detect(), int(os.environ.get("SLURM_RESTART_COUNT", 0))
signal.signal(signal.SIGTERM, lambda *_: (print(f"saved {world.rank}", flush=True), sys.exit(143)))
print(f"start {start} of rank {world.rank} of {world.size}", flush=True)
if start == 0 and world.rank == 1:
    sys.exit(7)
time.sleep(100)
"""

# $1 the checkout, the rest arguments of train.py. A job of higher priority takes the nodes from the training. The light
# job, beside it from then on, fails, is told to end, is queued again, and is given up.
SCRIPT = """
folder=$PWD
cd "$1"; shift
options=(--parsable --ntasks-per-node=1 --cpus-per-task=1 --gpus-per-node=1 --output="$folder/%x.log")
training=$(sbatch "${options[@]}" --job-name=training launch/slurm.sbatch "$@" --run-dir "$folder/run")
wait_for "$folder/training.log" "epoch 3/.*step 5/5"
sbatch --partition=urgent --nodes=2 --exclusive --output="$folder/urgent.log" --wrap "echo was here"
wait_for "$folder/urgent.log" "was here"
light=$(sbatch "${options[@]}" --job-name=light "$folder/light.sbatch")
cd "$folder"
wait_for light.log "start 1 of" 2
scancel --signal=TERM $light
wait_for light.log "start 2 of" 2
scontrol requeue $light
wait_for light.log "start 3 of" 2
until grep -qE "JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT)" training.job; do
    sleep 0.5; scontrol show job $training >training.job
done
scancel $light
wait_for light.log "saved" 6
sleep 8 # in which it would start again
scontrol show job $light >light.job
"""


def test_the_recipe(images: Path, tmp_path: Path, once: Callable) -> None:
    recipe = (ROOT / "launch" / "slurm.sbatch").read_text()
    (tmp_path / "light.py").write_text(LIGHT)
    (tmp_path / "light.sbatch").write_text(recipe.replace("launch/train.py", str(tmp_path / "light.py")))
    arguments = ["--data", str(images), *OPTIONS, "--device-batch", "6"]
    on_hosts(2, SCRIPT, tmp_path, str(ROOT), *arguments, timeout=400, slurm=True)

    training, said = (tmp_path / "training.job").read_text(), (tmp_path / "training.log").read_text()
    assert re.search(r"JobState=COMPLETED [^$]* Restarts=1 [^$]* ExitCode=0:0", training)
    assert said.count("ended by SIGTERM at epoch") == 1
    assert said.count("going on from the checkpoint at epoch") == 1
    assert "launcher             srun" in said
    assert " --cpus-per-task=1 " in said
    assert_every_step_is_committed_once(tmp_path / "run", {2})
    assert_same_end(tmp_path / "run", trained_alone(images, once))

    light, said = (tmp_path / "light.job").read_text(), (tmp_path / "light.log").read_text()
    assert "dist-loader: rank 1 on hostB ended with exit code 7" in said
    started = set(re.findall(r"start (\d) of rank (\d) of 2", said))
    assert started >= {(start, rank) for start in "123" for rank in "01"}
    assert max(started) == ("3", "1")
    assert re.search(r"JobState=CANCELLED [^$]* Restarts=3 ", light)
    assert processes(f"TEST_MARK={tmp_path}") == []
