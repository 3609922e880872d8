"""Where a sequence stands among the processes and devices that train together."""

from __future__ import annotations

from typing import Protocol

from dist_loader.errors import ConfigError
from dist_loader.world import World


class Topology(Protocol):
    """What a sequence needs to know of a strategy."""

    @property
    def world(self) -> World:
        """This process among all."""

    @property
    def replicas(self) -> int:
        """Devices that this process drives."""


def agreed_world(strategy: Topology | None, world: World | None) -> World:
    """The world of a strategy, or the one that was given, or the one that is found.

    Raises:
        ConfigError: both were given, and they differ.
    """
    if strategy is None:
        return World.detect() if world is None else world
    if world is not None and world != strategy.world:
        raise ConfigError(f"the sequence was given {world} and a strategy of {strategy.world}; give one of them")
    return strategy.world
