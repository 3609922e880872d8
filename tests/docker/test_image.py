"""The images, built and run for real, when `make test-docker` asks for it; that for GPUs where there is an nvcc."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.docker.composition import Composition
from tests.docker.engine import ROOT, Engine, lacking
from tests.docker.mpi_operator import Rehearsal

ASKED = "DIST_LOADER_TEST_IMAGES"
# What is run in place of the local image of Debian, where a registry can be reached: python:3.11.13-slim-bookworm.
BASE = "DIST_LOADER_TEST_BASE_IMAGE"
# A folder with a CUDA 12 toolkit (bin/nvcc), which stands for NVIDIA's image: nvidia/cuda:12.5.1-devel-ubuntu22.04.
CUDA = "DIST_LOADER_TEST_CUDA"

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(ASKED not in os.environ, reason="not asked for: make test-docker"),
    pytest.mark.skipif(lacking() is not None, reason=str(lacking())),
]

DIGITS = ("--data", "/data/digits/train", "--val-data", "/data/digits/val")
TRAIN = "/opt/dist_loader/launch/train.py"
LOOK_FOR_COMPILERS = "for tool in cc gcc g++ c++ clang cpp as ld make cmake nvcc; do command -v $tool; done"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = Engine(tmp_path_factory.mktemp("engine"))
    yield made
    made.remove()


@pytest.fixture(scope="module")
def base(engine: Engine) -> str:
    return os.environ.get(BASE) or engine.base_image()


@pytest.fixture(scope="module")
def image(engine: Engine, base: str) -> str:
    return engine.build("cpu", "localhost/dist_loader:cpu", BASE_IMAGE=base)


@pytest.fixture(scope="module")
def gpu_image(engine: Engine, base: str) -> str:
    if CUDA not in os.environ:
        pytest.skip(f"needs a CUDA 12 toolkit, {CUDA}=FOLDER")
    cuda = engine.image_of(Path(os.environ[CUDA]), "localhost/cuda:devel")
    return engine.build("gpu", "localhost/dist_loader:gpu", BASE_IMAGE=base, CUDA_IMAGE=cuda, CUDA_FOLDER="/contents")


def test_what_is_in_the_image(engine: Engine, image: str) -> None:
    config = engine.inspect("image", image)["Config"]
    assert isinstance(config, dict)
    assert config["User"] == "1000"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    look = f"""
        id --user
        {LOOK_FOR_COMPILERS}
        find / -xdev \\( -name 'ssh_host_*' -o -name 'id_*' -o -name authorized_keys -o -name known_hosts \\) -type f \\
            -not -path '/opt/venv/*' -not -path '/proc/*' 2>/dev/null
        find /opt /data -xdev -type f -writable
        true
    """
    done = engine.run(image, "sh", "-c", look, options=["--network=none"])
    assert (done.stdout, done.returncode) == ("1000\n", 0), done.stderr


def test_the_default_command_trains_on_two_ranks(engine: Engine, image: str) -> None:
    done = engine.run(image, options=["--network=none"], timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "horovod: 2 ranks x 1 devices" in done.stdout
    accuracy = re.search(r"val accuracy +([\d.]+)", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.9


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("python", "-c", "import sys; sys.exit(7)"), 7),
        (("-np", "2", "--oversubscribe", "--with", "mpirun", "/job/fails.py"), 7),
        (("no-such-script.py",), 2),
        (("no-such-command",), 127),
        (("worker",), 2),
        (("dist-loader", "launch", "--help"), 0),
    ],
)
def test_exit_codes_come_through(
    engine: Engine, image: str, tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    (tmp_path / "fails.py").write_text(
        "import os, sys, time\nif os.environ['OMPI_COMM_WORLD_RANK'] == '1': sys.exit(7)\ntime.sleep(60)\n"
    )
    tmp_path.chmod(0o755)
    done = engine.run(image, *arguments, options=[f"--volume={tmp_path}:/job:ro", "--network=none"])
    assert done.returncode == code, done.stdout + done.stderr


def test_a_container_that_is_stopped_writes_a_checkpoint(engine: Engine, image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    options = [f"--volume={tmp_path}:/home/trainer/runs", "--network=none"]
    job = ["-np", "2", "--oversubscribe", "--with", "mpirun", TRAIN, *DIGITS, "--epochs", "1000"]
    with engine.started(image, *job, name="stopped", options=options):
        wait_for_a_step(tmp_path)
        engine.podman("stop", "--time=60", "stopped")
        state = engine.inspect("container", "stopped")["State"]
        assert isinstance(state, dict)
        assert state["ExitCode"] == 128 + signal.SIGTERM, engine.podman("logs", "stopped").stderr
    assert list((tmp_path / "train" / "checkpoints").iterdir()) != []


def test_an_mpijob_on_two_workers_and_a_launcher(engine: Engine, image: str, tmp_path: Path) -> None:
    rehearsal = rehearse(engine, image, tmp_path)
    photos = {"--data=/data/photos/train": "--data=/data/digits/train"}
    photos["--val-data=/data/photos/val"] = "--val-data=/data/digits/val"
    with rehearsal.workers() as workers:
        # As the file has it, but for the data, which every image brings.
        options, arguments = rehearsal.launcher(replace=photos)
        done = engine.run(image, *arguments, options=options, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "horovod: 2 ranks x 1 devices" in done.stdout
        assert "mpirun" in done.stderr
        assert (rehearsal.claims["runs"] / "train" / "model.keras").is_file()
        for worker in workers:  # the image's own health check
            engine.podman("healthcheck", "run", worker)

        # A key of another job does not open the door, and a worker without the job's key is none.
        stranger = tmp_path / "stranger"
        (stranger / "secret").mkdir(parents=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger / "secret" / "id_rsa"], check=True
        )
        (stranger / "secret" / "id_rsa").chmod(0o644)
        options = [word.replace(f"{tmp_path}/secret", f"{stranger}/secret") for word in options]
        host = f"{workers[0]}.train.default.svc"
        refused = engine.run(image, "ssh", host, "true", options=options)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
        refused = engine.run(image, "ssh", "-o", "StrictHostKeyChecking=no", host, "true", options=options)
        assert refused.returncode == 255
        assert "Permission denied (publickey)" in refused.stderr


def test_a_worker_that_is_taken_away_and_comes_back(engine: Engine, image: str, tmp_path: Path) -> None:
    """Kubernetes drains a node: SIGTERM to the worker, a checkpoint, a new worker of that name, and the job goes on."""
    rehearsal = rehearse(engine, image, tmp_path)
    runs = rehearsal.claims["runs"]
    photos = {"--data=/data/photos/train": "--data=/data/digits/train"}
    photos["--val-data=/data/photos/val"] = "--val-data=/data/digits/val"
    with rehearsal.workers() as workers:
        options, arguments = rehearsal.launcher("--epochs=1000", replace=photos)
        with engine.started(image, *arguments, name="launcher", options=options):
            wait_for_a_step(runs)
            engine.podman("stop", "--time=60", workers[1])
            engine.podman("start", workers[1])
            deadline = time.monotonic() + 180
            while len(re.findall("horovod: 2 ranks", (said := engine.podman("logs", "launcher")).stdout)) < 2:
                assert time.monotonic() < deadline, said.stdout + said.stderr
                time.sleep(0.5)
    assert "starting again in 1 s, 1 of 10" in said.stderr
    assert "going on from the checkpoint at " in said.stdout + said.stderr


def test_the_compose_file_trains_over_two_workers(engine: Engine, image: str) -> None:
    recipe = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text(encoding="utf-8"))
    compose = Composition(engine, recipe, image)
    with compose.up():
        done = compose.run("train", timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "horovod: 2 ranks x 1 devices" in done.stdout
        found = engine.run(image, "ls", "/home/trainer/runs/train", options=["--volume=runs:/home/trainer/runs"])
        assert "model.keras" in found.stdout


def test_the_image_for_gpus_has_nccl_and_trains_without_a_gpu(engine: Engine, gpu_image: str) -> None:
    """As far as a machine without a GPU can tell: what uses one is compiled and loaded, and not called."""
    look = f"{LOOK_FOR_COMPILERS}; horovodrun --check-build"
    done = engine.run(gpu_image, "sh", "-c", look, options=["--network=none"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("Horovod v")  # none of the tools is there
    for part in ("TensorFlow", "MPI", "Gloo", "NCCL"):
        assert f"[X] {part}" in done.stdout
    for ranks in ((), ("-np", "2", "--oversubscribe"), ("-np", "2", "--oversubscribe", "--with", "mpirun")):
        done = engine.run(gpu_image, *ranks, TRAIN, *DIGITS, options=["--network=none"], timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("horovod: 2 ranks x 1 devices" in done.stdout) == bool(ranks)


def rehearse(engine: Engine, image: str, folder: Path) -> Rehearsal:
    claims = {name: folder / name for name in ("photos", "runs")}
    for claim in claims.values():
        claim.mkdir()
        os.chown(claim, 1000, 1000)
    job = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text(encoding="utf-8"))
    return Rehearsal(engine, job, image, claims, folder)


def wait_for_a_step(runs: Path, seconds: float = 90) -> None:
    """Wait until a training has written its first checkpoint."""
    deadline = time.monotonic() + seconds
    while not list(runs.glob("train/checkpoints/*")):
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.2)
