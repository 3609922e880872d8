"""One process, one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from dist_loader.channel import Alone, Channel
from dist_loader.devices import Array
from dist_loader.errors import ConfigError
from dist_loader.world import World


@dataclass(frozen=True)
class SingleDevice:
    """Keras as it is, on the device that TensorFlow takes by itself."""

    world: World
    name: str = "single"
    replicas: int = 1
    channel: Channel = field(default=Alone(), compare=False)

    def __post_init__(self) -> None:
        if self.world.size > 1:
            raise ConfigError(
                f"{self.world.launcher} started {self.world.size} processes, which the single strategy would let "
                'train apart from each other; use strategy "horovod" (or "auto")'
            )

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def adapt(self, model: Any) -> None:
        pass

    def sum_over_replicas(self, value: Any) -> Any:
        return value

    def sum_in_step(self, values: Sequence[Any], name: str | None = None) -> list[Any]:
        return list(values)

    def mean_gradients(
        self, gradients: Sequence[Any], share: Any | None, riders: Sequence[Any] = ()
    ) -> tuple[list[Any], list[Any]]:
        return list(gradients), list(riders)

    def sum_arrays(self, arrays: Sequence[Array]) -> list[Array]:
        return list(arrays)

    def gather_rows(self, array: Array) -> Array:
        return array

    def gatherer(self, name: str) -> Callable[[Array], Array]:
        return lambda array: array

    def broadcast(self, variables: Sequence[Any]) -> None:
        pass
