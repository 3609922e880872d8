"""One process, every device of this machine: `tf.distribute.MirroredStrategy`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from dist_loader.channel import Alone, Channel
from dist_loader.devices import Array
from dist_loader.errors import ConfigError
from dist_loader.world import World

_CLIPPING = ("clipnorm", "global_clipnorm", "clipvalue")


@dataclass(frozen=True)
class MirroredDevices:
    """Variables mirrored on all local devices, gradients summed among them, all in one process."""

    world: World
    mirrors: tf.distribute.MirroredStrategy
    name: str = "mirrored"
    channel: Channel = field(default=Alone(), compare=False)

    @classmethod
    def on_local_devices(cls, world: World) -> MirroredDevices:
        """A mirror on each GPU; where there is none, on each logical CPU device.

        Raises:
            ConfigError: this is one of several processes.
        """
        if world.size > 1:
            raise ConfigError(
                f"the mirrored strategy drives the devices of one process, and {world.launcher} started {world.size}; "
                'use strategy "horovod" (or "auto")'
            )
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return cls(world, _mirrors(*(device.name for device in devices)))

    @property
    def replicas(self) -> int:
        return int(self.mirrors.num_replicas_in_sync)

    def scope(self) -> AbstractContextManager[Any]:
        scope: AbstractContextManager[Any] = self.mirrors.scope()
        return scope

    def adapt(self, model: Any) -> None:
        if model.distribute_strategy is not self.mirrors:
            raise ConfigError("the model was built outside of strategy.scope(); build and compile it inside")
        optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
        if getattr(optimizer, "gradient_accumulation_steps", None):
            raise ConfigError("Keras's gradient_accumulation_steps does not work under MirroredStrategy; leave it out")
        # Keras 3.15 cannot run several steps in one call here: its loop over them fails. One by one they are the same.
        model.steps_per_execution = 1
        if self.replicas > 1 and hasattr(model.optimizer, "check_finite"):
            model.optimizer.check_finite = functools.partial(_finite_on_all, model.optimizer)
        if self.replicas > 1 and any(getattr(optimizer, name, None) is not None for name in _CLIPPING):
            optimizer._clip_gradients = functools.partial(_clip_sum, optimizer, self.replicas)

    def sum_over_replicas(self, value: Any) -> Any:
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)

    def sum_in_step(self, values: Sequence[Any], name: str | None = None) -> list[Any]:
        return [self.sum_over_replicas(value) for value in values]

    def mean_gradients(
        self, gradients: Sequence[Any], share: Any | None, riders: Sequence[Any] = ()
    ) -> tuple[list[Any], list[Any]]:
        # One process is the world. Among its replicas Keras sums the gradients itself.
        return list(gradients), list(riders)

    def sum_arrays(self, arrays: Sequence[Array]) -> list[Array]:
        return list(arrays)

    def gather_rows(self, array: Array) -> Array:
        return array

    def gatherer(self, name: str) -> Callable[[Array], Array]:
        return lambda array: array

    def broadcast(self, variables: Sequence[Any]) -> None:
        pass


def _finite_on_all(optimizer: Any, gradients: Sequence[Any]) -> Any:
    """Whether the gradients of all replicas are finite; called in the context of each replica.

    Keras's loss-scaling optimizer takes the first replica's answer for all, so that an overflow on another one would
    make the weights infinite.
    """
    finite = type(optimizer).check_finite(optimizer, gradients)
    overflows = tf.distribute.get_replica_context().all_reduce(
        tf.distribute.ReduceOp.SUM, 1.0 - tf.cast(finite, tf.float32)
    )
    return overflows < 1


def _clip_sum(optimizer: Any, replicas: int, gradients: Sequence[Any]) -> list[Any]:
    """The optimizer's own clipping, on the sum of the replicas' gradients.

    Keras clips each replica's part and then sums what is left, which is not what one device computes. Here the sum
    comes first; each replica hands on an equal part of the clipped sum, for Keras to sum up again.
    """
    dense = [tf.convert_to_tensor(gradient) for gradient in gradients]
    total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, dense)
    return [gradient / replicas for gradient in type(optimizer)._clip_gradients(optimizer, total)]


@functools.cache
def _mirrors(*devices: str) -> tf.distribute.MirroredStrategy:
    """The one mirror on some devices: TensorFlow mixes up what the replicas of two of them send each other.

    (Each counts its messages from the same number: "shape mismatch in the collective instance", in TensorFlow 2.21.)
    """
    return tf.distribute.MirroredStrategy(list(devices))
