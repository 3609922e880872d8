"""Images and containers without a Docker engine: podman as root, with its storage and networks in a folder of ours."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = {"podman": "podman", "runc": "runc", "debootstrap": "debootstrap"}  # and their Debian packages
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def lacking() -> str | None:
    """Why no image can be built and run here; None if it can."""
    if os.geteuid() != 0:
        return "building images without an engine needs root"
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    return f"apt install --no-install-recommends {' '.join(missing)}" if missing else None


@dataclass(frozen=True)
class Engine:
    """Podman over a folder. What it makes is gone when `remove` has run.

    Attributes:
        folder: for images, containers and networks.
    """

    folder: Path

    def podman(
        self, *arguments: str | Path, timeout: float = 120, check: bool = True, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run podman to its end; output as text."""
        done = subprocess.run(
            [*self._command(), *map(str, arguments)],
            env={**os.environ, "TMPDIR": "/var/tmp"},
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"podman {arguments}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    def _command(self) -> list[str]:
        options = {"--root": "storage", "--runroot": "run", "--network-config-dir": "networks"}
        places = [word for option, name in options.items() for word in (option, str(self.folder / name))]
        rest = ["--storage-driver=overlay", "--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=runc"]
        return ["podman", *places, *rest]

    def base_image(self) -> str:
        """Debian with Python 3.11: what stands for the public base image where no registry is reached."""
        root = self.folder / "debian"
        include = "--include=ca-certificates,python3,python3-venv"
        subprocess.run(
            ["debootstrap", "--variant=minbase", include, "bookworm", root],
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=600,
        )
        # Who stands between this machine and the package index is trusted inside as outside.
        shutil.copy(CERTIFICATES, root / str(CERTIFICATES).lstrip("/"))
        (root / "etc" / "pip.conf").write_text(f"[global]\ncert = {CERTIFICATES}\n")
        archive = self.folder / "debian.tar"
        subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True, timeout=120)
        self.podman("import", "--quiet", archive, "localhost/bookworm:base", timeout=300)
        archive.unlink()
        shutil.rmtree(root)
        return "localhost/bookworm:base"

    def image_of(self, folder: Path, tag: str) -> str:
        """An image of nothing but a folder's files, at /contents."""
        self.podman(
            "build", f"--tag={tag}", "--file=-", str(folder), timeout=600, given="FROM scratch\nCOPY . /contents\n"
        )
        return tag

    def build(self, target: str, tag: str, **arguments_of_build: str) -> str:
        """Build a target of the Dockerfile, with build arguments."""
        # The host's name: one of its own would be in no /etc/hosts, and Gloo, which the build tries, needs its address.
        arguments = ["--isolation=chroot", "--uts=host"]
        arguments += ["--layers", "--format=docker", f"--target={target}", f"--tag={tag}"]
        arguments += [f"--build-arg={name}={value}" for name, value in arguments_of_build.items()]
        arguments += [f"--file={ROOT / 'docker' / 'Dockerfile'}", str(ROOT)]
        self.podman("build", *arguments, timeout=2400)
        return tag

    @contextlib.contextmanager
    def network(self, name: str, subnet: str) -> Iterator[None]:
        """A bridge with addresses such as 10.89.231.0/24."""
        self.podman("network", "create", f"--subnet={subnet}", name)
        try:
            yield
        finally:
            self.podman("network", "rm", "--force", name, check=False)

    def run(
        self, image: str, *arguments: str, options: Sequence[str] = (), timeout: float = 150
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end; its output and exit code."""
        return self.podman("run", "--rm", *LIMITS, *options, image, *arguments, timeout=timeout, check=False)

    @contextlib.contextmanager
    def started(self, image: str, *arguments: str, name: str, options: Sequence[str] = ()) -> Iterator[str]:
        """A container that runs in the background."""
        self.podman("run", "--detach", f"--name={name}", *LIMITS, *options, image, *arguments)
        try:
            yield name
        finally:
            self.podman("rm", "--force", "--time=1", name, check=False)

    def inspect(self, kind: str, name: str) -> dict[str, object]:
        """What podman knows about an image or a container."""
        found = json.loads(self.podman(kind, "inspect", name).stdout)[0]
        assert isinstance(found, dict)
        return found

    def wait_until(self, container: str, command: Sequence[str], seconds: float = 30) -> None:
        """Wait until a command in a container ends with 0, as a readiness probe does."""
        deadline = time.monotonic() + seconds
        while (done := self.podman("exec", container, *command, check=False)).returncode != 0:
            said = self.podman("logs", container, check=False)
            assert time.monotonic() < deadline, f"{done.stderr}{said.stdout}{said.stderr}"
            time.sleep(0.3)

    def remove(self) -> None:
        """Remove all containers, networks and images, and the folder."""
        self.podman("rm", "--all", "--force", "--time=1", check=False)
        self.podman("network", "prune", "--force", check=False)
        self.podman("rmi", "--all", "--force", check=False, timeout=300)
        for _ in range(10):  # each podman that was killed may have left a mount over the last one's
            if (
                subprocess.run(
                    ["umount", "--lazy", self.folder / "storage" / "overlay"], stderr=subprocess.DEVNULL
                ).returncode
                != 0
            ):
                break
        shutil.rmtree(self.folder)


# The host may allow less than podman asks for when it is told nothing.
LIMITS = ("--ulimit=nofile=10000:10000", "--ulimit=nproc=10000:10000")


def environment(variables: Mapping[str, str]) -> list[str]:
    """Options that set variables."""
    return [f"--env={name}={value}" for name, value in variables.items()]
