"""What Kubernetes' MPI operator does with an MPIJob, done with containers on one bridge.

From the operator's controller (v2beta1, Open MPI): names, environment, the layout of the mounted secret and of the
hostfile. Resources, probes and restarts are Kubernetes' own; the readiness probe is run here as it is written.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.docker.engine import Engine, environment

NETWORK = "dist-loader-test"
SUBNET = "10.89.231"
MOUNTED = 1000  # fsGroup


@dataclass(frozen=True)
class Rehearsal:
    """An MPIJob on its way to containers.

    Attributes:
        engine: runs them.
        job: the manifest.
        image: used instead of the one that it names.
        claims: folders that stand for the persistent volume claims.
        folder: for the secret and the hostfile.
    """

    engine: Engine
    job: dict[str, Any]
    image: str
    claims: dict[str, Path]
    folder: Path

    @contextlib.contextmanager
    def workers(self) -> Iterator[list[str]]:
        """The workers, ready; their names."""
        self._secret()
        hosts = self._hosts()
        lines = [f"{host} slots={self.job['spec']['slotsPerWorker']}\n" for host in hosts if "worker" in host]
        (self.folder / "hostfile").write_text("".join(lines))
        pod = self._pod("Worker")
        container = pod["containers"][0]
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.engine.network(NETWORK, f"{SUBNET}.0/24"))
            names = []
            for number in range(self.job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"]):
                name = f"{self.job['metadata']['name']}-worker-{number}"
                options = [*self._options("Worker", name), *environment({"K_MPI_JOB_ROLE": "worker"})]
                stack.enter_context(self.engine.started(self.image, *container["args"], name=name, options=options))
                names.append(name)
            for name in names:
                self.engine.wait_until(name, container["readinessProbe"]["exec"]["command"])
            yield names

    def launcher(self, *more: str, replace: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
        """Podman's options and the arguments of the launcher's container."""
        arguments = [(replace or {}).get(word, word) for word in self._pod("Launcher")["containers"][0]["args"]]
        variables = {
            "K_MPI_JOB_ROLE": "launcher",
            "OMPI_MCA_orte_keep_fqdn_hostnames": "true",
            "OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile",
            "OMPI_MCA_plm_rsh_args": "-o ConnectionAttempts=10",
            "OMPI_MCA_orte_set_default_slots": str(self.job["spec"]["slotsPerWorker"]),
            "NVIDIA_VISIBLE_DEVICES": "",
            "NVIDIA_DRIVER_CAPABILITIES": "",
        }
        name = f"{self.job['metadata']['name']}-launcher"
        hostfile = f"--volume={self.folder / 'hostfile'}:/etc/mpi/hostfile:ro"
        return [*self._options("Launcher", name), *environment(variables), hostfile], [*arguments, *more]

    def _pod(self, role: str) -> dict[str, Any]:
        spec = self.job["spec"]["mpiReplicaSpecs"][role]["template"]["spec"]
        assert isinstance(spec, dict)
        return spec

    def _hosts(self) -> dict[str, str]:
        """The addresses of the pods, by the names that the operator's service gives them."""
        name = self.job["metadata"]["name"]
        pods = [f"{name}-worker-{n}" for n in range(self.job["spec"]["mpiReplicaSpecs"]["Worker"]["replicas"])]
        return {f"{pod}.{name}.default.svc": f"{SUBNET}.{10 + n}" for n, pod in enumerate([*pods, f"{name}-launcher"])}

    def _options(self, role: str, name: str) -> list[str]:
        pod, hosts = self._pod(role), self._hosts()
        container, user = pod["containers"][0], pod["securityContext"]
        address = next(address for host, address in hosts.items() if host.startswith(f"{name}."))
        options = [f"--hostname={name}", f"--network={NETWORK}", f"--ip={address}"]
        options += [f"--add-host={host}:{address}" for host, address in hosts.items()]
        options += [f"--user={user['runAsUser']}:{user['runAsGroup']}", f"--group-add={user['fsGroup']}"]
        options += [f"--cap-drop={each}" for each in container["securityContext"]["capabilities"]["drop"]]
        if not container["securityContext"]["allowPrivilegeEscalation"]:
            options.append("--security-opt=no-new-privileges")
        options.append(f"--volume={self.folder / 'secret'}:{self.job['spec']['sshAuthMountPath']}:ro")
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                assert (mount["mountPath"], volume["emptyDir"]["medium"]) == ("/dev/shm", "Memory")
                options.append(f"--shm-size={volume['emptyDir']['sizeLimit'].removesuffix('i')}")
            else:
                access = "ro" if mount.get("readOnly") else "rw"
                claim = self.claims[volume["persistentVolumeClaim"]["claimName"]]
                options.append(f"--volume={claim}:{mount['mountPath']}:{access}")
        return options

    def _secret(self) -> None:
        """A key as the operator makes it, mounted as Kubernetes does: root's, readable, behind symbolic links."""
        data = self.folder / "secret" / "..2026_01_01"
        data.mkdir(parents=True)
        (self.folder / "secret" / "..data").symlink_to(data.name)
        kind = ["-t", "ecdsa", "-b", "521", "-m", "PEM"]
        subprocess.run(["ssh-keygen", "-q", *kind, "-N", "", "-C", "", "-f", data / "id_rsa"], check=True)
        (data / "authorized_keys").write_bytes((data / "id_rsa.pub").read_bytes())
        for name in ("id_rsa", "id_rsa.pub", "authorized_keys"):
            (self.folder / "secret" / name).symlink_to(f"..data/{name}")
            (data / name).chmod(0o644)
            os.chown(data / name, 0, MOUNTED)
