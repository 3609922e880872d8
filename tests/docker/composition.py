"""What docker compose does with docker/compose.yaml, done with podman: what Docker documents of each key."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.docker.engine import Engine

NETWORK = "dist-loader-compose"
SUBNET = "10.89.232"
KNOWN = {
    "image",
    "build",
    "volumes",
    "shm_size",
    "command",
    "depends_on",
    "healthcheck",
    "stop_grace_period",
    "hostname",
}


@dataclass(frozen=True)
class Composition:
    """Services on their way to containers.

    Attributes:
        engine: runs them.
        recipe: the compose file.
        image: used instead of building the one that it names.
    """

    engine: Engine
    recipe: dict[str, Any]
    image: str

    @contextlib.contextmanager
    def up(self) -> Iterator[None]:
        """The network and the volumes; both are gone afterwards."""
        for service in self.recipe["services"].values():
            assert service.keys() <= KNOWN, service.keys() - KNOWN
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.engine.network(NETWORK, f"{SUBNET}.0/24"))
            for volume in self.recipe["volumes"]:
                self.engine.podman("volume", "create", volume)
                stack.callback(self.engine.podman, "volume", "rm", "--force", volume, check=False)
            yield

    def run(self, name: str, timeout: float) -> subprocess.CompletedProcess[str]:
        """`docker compose run --rm NAME`: what it depends on first, as far as it has to be."""
        with contextlib.ExitStack() as stack:
            self._start_dependencies(name, stack, set())
            command = self._service(name)["command"]
            return self.engine.run(self.image, *command, options=self._options(name), timeout=timeout)

    def _start_dependencies(self, name: str, stack: contextlib.ExitStack, started: set[str]) -> None:
        for needed, how in self._service(name).get("depends_on", {}).items():
            if needed in started:
                continue
            started.add(needed)
            self._start_dependencies(needed, stack, started)
            service = self._service(needed)
            if how["condition"] == "service_completed_successfully":
                done = self.engine.run(self.image, *service["command"], options=self._options(needed))
                assert done.returncode == 0, done.stdout + done.stderr
                continue
            assert how["condition"] == "service_healthy"
            kind, *test = service["healthcheck"]["test"]
            assert kind == "CMD"
            options = self._options(needed)
            stack.enter_context(self.engine.started(self.image, *service["command"], name=needed, options=options))
            self.engine.wait_until(needed, test)

    def _service(self, name: str) -> dict[str, Any]:
        service = self.recipe["services"][name]
        assert isinstance(service, dict)
        return service

    def _options(self, name: str) -> list[str]:
        names = list(self.recipe["services"])
        addresses = {each: f"{SUBNET}.{10 + at}" for at, each in enumerate(names)}
        service = self._service(name)
        options = [f"--network={NETWORK}", f"--ip={addresses[name]}", f"--shm-size={service['shm_size']}"]
        options += [f"--add-host={each}:{address}" for each, address in addresses.items()]
        options += [f"--hostname={service['hostname']}"] if "hostname" in service else []
        return options + [f"--volume={volume}" for volume in service["volumes"]]
