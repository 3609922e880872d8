"""`launch/train.py` as a user runs it: under python, horovodrun and mpirun, with good input and with bad."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.distributed.launching import ROOT, Launch, environment, run
from tests.failures import documented

pytestmark = pytest.mark.distributed

TRAIN = ROOT / "launch" / "train.py"
SMALL = ["--size", "8", "--epochs", "2", "--device-batch", "8", "--host-batch", "100", "--seed", "1"]
KEYS = {
    "strategy",
    "launcher",
    "world_size",
    "samples",
    "epochs",
    "steps_per_epoch",
    "images_per_second",
    "input_wait_fraction",
    "bad_samples",
    "val_accuracy",
    "val_loss",
    "seconds",
    "model",
}


@dataclass(frozen=True)
class Job:
    """A job that has run, and its run folder."""

    done: subprocess.CompletedProcess[str]
    folder: Path

    def summary(self) -> dict:
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture
def job(images: Path, once: Callable) -> Callable[[Launch], Job]:
    """The job on the small images, launched in one of the ways."""

    def launched(launch: Launch) -> Job:
        def start(folder: Path) -> Job:
            command = launch.command(TRAIN, "--data", images, "--run-dir", folder, *SMALL)
            return Job(run(command), folder)

        return once(f"job-{launch}", start)

    return launched


@pytest.mark.parametrize(
    ("launch", "strategy", "launcher"),
    [
        (Launch("python"), "single", "none"),
        (Launch("horovodrun", 2), "horovod", "horovodrun"),
        (Launch("mpi", 2), "horovod", "mpirun"),
    ],
    ids=str,
)
def test_the_same_file_runs_under_every_launcher(launch: Launch, strategy: str, launcher: str, job: Callable) -> None:
    ran = job(launch)
    assert ran.done.returncode == 0, ran.done.stderr[-3000:]
    summary = ran.summary()
    assert summary.keys() >= KEYS
    assert (summary["strategy"], summary["launcher"], summary["world_size"]) == (strategy, launcher, launch.ranks)
    assert summary["samples"] + summary["val_samples"] == 60
    assert summary["epochs"] == 2
    assert summary["bad_samples"] == 0
    assert summary["images_per_second"] > 0
    assert 0 <= summary["input_wait_fraction"] <= 1
    assert "val_accuracy" in ran.done.stdout or "val accuracy" in ran.done.stdout


@pytest.mark.parametrize("launch", [Launch("horovodrun", 2), Launch("mpi", 2)], ids=str)
def test_rank_0_speaks_and_the_others_write_logs(launch: Launch, job: Callable) -> None:
    ran = job(launch)
    assert ran.done.stdout.count("epoch 2/2  step") == 1
    assert "images/s" in ran.done.stdout
    assert "input wait" in ran.done.stdout
    assert "epoch 2/2" in (ran.folder / "logs" / "rank-1.log").read_text()
    assert not (ran.folder / "logs" / "rank-0.log").exists()


def test_stock_keras_loads_the_model_without_this_package(job: Callable, tmp_path: Path) -> None:
    code = (
        "import sys, keras, numpy as np\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "assert 'dist_loader' not in sys.modules and 'horovod' not in sys.modules\n"
        "assert model.predict(np.zeros((2, 8, 8, 3), 'uint8'), verbose=0).shape == (2, 3)\n"
        "model.fit(np.zeros((2, 8, 8, 3), 'uint8'), np.zeros(2), verbose=0)\n"
    )
    model = job(Launch("horovodrun", 2)).folder / "model.keras"
    env = {**environment(), "PYTHONPATH": str(tmp_path)}
    python = Launch("python").command("-c", code, model)
    done = run([python[0], "-P", *python[1:]], env=env)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_training_that_was_broken_off_goes_on(images: Path, tmp_path: Path) -> None:
    """Killed after its first epoch, the same command trains the rest, and ends as if nothing had happened."""
    command = Launch("python").command(TRAIN, "--data", images, "--run-dir", tmp_path / "cut", *SMALL[:2])
    options = ["--epochs", "4", "--device-batch", "8", "--seed", "1"]
    whole = Launch("python").command(TRAIN, "--data", images, "--run-dir", tmp_path / "whole", *SMALL[:2], *options)
    assert run(whole).returncode == 0
    with subprocess.Popen([*command, *options], env=environment(), stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/4"):
                process.kill()
    again = run([*command, *options])
    assert again.returncode == 0, again.stderr[-3000:]
    assert "epoch 1/4" not in again.stdout
    assert "epoch 4/4" in again.stdout
    cut, expected = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("cut", "whole"))
    assert cut["epochs"] == 4
    assert cut["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-5)


def test_after_a_finished_training_the_same_command_starts_anew(images: Path, tmp_path: Path) -> None:
    command = Launch("python").command(TRAIN, "--data", images, "--run-dir", tmp_path, *SMALL)
    for _ in range(2):
        done = run(command)
        assert done.returncode == 0
        assert "epoch 1/2" in done.stdout


def broken_image(images: Path, folder: Path) -> Path:
    """A copy of the images, one of which is cut off."""
    shutil.copytree(images, folder)
    path = folder / "b" / "031.png"
    path.write_bytes(path.read_bytes()[:40])
    return path


@pytest.mark.parametrize("launch", [Launch("horovodrun", 2), Launch("mpi", 2)], ids=str)
def test_a_broken_image_ends_all_ranks_and_is_named(launch: Launch, images: Path, tmp_path: Path) -> None:
    path = broken_image(images, tmp_path / "data")
    command = launch.command(TRAIN, "--data", tmp_path / "data", "--run-dir", tmp_path / "run", *SMALL)
    done = run(command, timeout=120)
    assert done.returncode != 0
    output = done.stdout + done.stderr
    line = next(line for line in output.splitlines() if str(path) in line)
    assert re.search(r"(train.py|dist_loader): rank \d", line)
    assert "cannot read sample" in line
    assert documented(line)
    assert "Traceback (most recent call last)" not in output.replace(_horovodruns_own(output), "")
    assert not (tmp_path / "run" / "summary.json").exists()


def _horovodruns_own(output: str) -> str:
    """The traceback with which horovodrun itself ends after every failure."""
    start = output.find("Traceback (most recent call last)")
    return output[start:] if "run_commandline" in output[start:] and start >= 0 else "\0"


BAD_INPUT = {
    "missing folder": (lambda images, tmp: ["--data", str(tmp / "nowhere")], "nowhere"),
    "one class": (lambda images, tmp: ["--data", str(_one(images, tmp))], "one class"),
    "device batch 0": (lambda images, tmp: ["--data", str(images), "--device-batch", "0"], "--device-batch"),
    "size 0": (lambda images, tmp: ["--data", str(images), "--size", "0"], "--size"),
    "size of three": (lambda images, tmp: ["--data", str(images), "--size", "8x8x3"], "--size"),
    "small host batch": (
        lambda images, tmp: ["--data", str(images), "--host-batch", "31", "--device-batch", "32"],
        "host_batch",
    ),
    "host batch in words": (lambda images, tmp: ["--data", str(images), "--host-batch", "lots"], "lots"),
    "unknown model": (lambda images, tmp: ["--data", str(images), "--model", "ResNet5"], "ResNet5"),
    "network too large": (lambda images, tmp: ["--data", str(images), "--model", "InceptionV3", "--size", "9"], "9"),
    "broken image": (lambda images, tmp: ["--data", str(broken_image(images, tmp / "data").parents[1])], "031.png"),
    "run folder is a file": (
        lambda images, tmp: ["--data", str(images), "--run-dir", str(images / "a" / "000.png")],
        "000.png",
    ),
    "no data": (lambda images, tmp: [], "--data"),
}


def _one(images: Path, tmp: Path) -> Path:
    shutil.copytree(images / "a", tmp / "one" / "a")
    return tmp / "one"


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_one_line_and_exit_code_2(name: str, images: Path, tmp_path: Path) -> None:
    options, word = BAD_INPUT[name]
    command = Launch("python").command(TRAIN, "--run-dir", tmp_path / "run", *options(images, tmp_path))
    done = run(command, timeout=120)
    assert done.returncode == 2, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if "I0000" not in line and "absl::InitializeLog" not in line]
    assert len(lines) == 1, lines
    assert word in lines[0]
    assert "Traceback" not in done.stderr


def test_a_strategy_that_is_not_installed(images: Path, tmp_path: Path) -> None:
    (tmp_path / "horovod.py").write_text("raise ImportError('none here')")
    env = {**environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = Launch("python").command(TRAIN, "--data", images, "--run-dir", tmp_path / "run", "--strategy", "horovod")
    done = run(command, env=env, timeout=120)
    assert done.returncode == 2
    assert "install_horovod" in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = Launch("python").command(TRAIN, "--data", tmp_path / "nowhere", "--run-dir", tmp_path / "run", "--debug")
    done = run(command, timeout=120)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
