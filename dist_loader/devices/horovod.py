"""One process per device, gradients averaged by Horovod.

Horovod's own Keras integration does nothing on Keras 3: its `DistributedOptimizer` overrides methods that Keras 3
never calls. What is here is all that Keras 3 needs of Horovod.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from dist_loader.devices import Array, as_float64, like
from dist_loader.errors import ConfigError
from dist_loader.world import World

_INSTALL = "install it with: python launch/install_horovod.py"


@dataclass(frozen=True)
class HorovodDevices:
    """The ranks of a Horovod job, each with one device."""

    world: World
    name: str = "horovod"
    replicas: int = 1

    @classmethod
    def started(cls, world: World) -> HorovodDevices:
        """Pin this process to its GPU and join the other ranks.

        Raises:
            ConfigError: Horovod is not installed, it finds another world than the launcher's, or a GPU is missing.
        """
        hvd = _horovod()
        _pin_gpu(world)
        hvd.init()
        found = (hvd.rank(), hvd.size())
        if found != (world.rank, world.size):
            raise ConfigError(
                f"the launcher {world.launcher} made this process rank {world.rank} of {world.size}, but Horovod sees "
                f"rank {found[0]} of {found[1]}: it was built without this launcher's MPI, or started without it"
            )
        return cls(world)

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def adapt(self, model: Any) -> None:
        if getattr(model.optimizer, "gradient_accumulation_steps", None):
            raise ConfigError(
                "Keras's gradient_accumulation_steps advances learning-rate schedules once per micro-step; leave it out"
            )
        # XLA cannot compile Horovod's operations, and Keras turns it on by itself on GPUs.
        model.jit_compile = False

    def sum_over_replicas(self, value: Any) -> Any:
        return value

    def sum_in_step(self, values: Sequence[Any]) -> list[Any]:
        hvd = _horovod()
        return list(hvd.grouped_allreduce(list(values), op=hvd.Sum, name="HorovodAllreduce_counts"))

    def mean_gradients(self, gradients: Sequence[Any], share: Any | None) -> list[Any]:
        present = [_dense(gradient) for gradient in gradients if gradient is not None]
        if share is None:
            mean = iter(self._mean(present))
        else:
            weighted = [gradient * tf.cast(share, gradient.dtype) for gradient in present]
            *sums, whole = self._mean([*weighted, share])
            mean = iter(total / tf.cast(whole, total.dtype) for total in sums)
        return [None if gradient is None else next(mean) for gradient in gradients]

    def _mean(self, tensors: list[Any]) -> list[Any]:
        """Tensors averaged over the world, those of one type in one group, for a group has one type.

        The name must hold "HorovodAllreduce": that is how Horovod tells its own failures from others.
        """
        hvd = _horovod()
        by_type: dict[Any, list[int]] = defaultdict(list)
        for at, tensor in enumerate(tensors):
            by_type[tensor.dtype].append(at)
        means = list(tensors)
        for dtype, places in by_type.items():
            # Horovod does not know bfloat16.
            wire = tf.float32 if dtype == tf.bfloat16 else dtype
            group = [tf.cast(tensors[at], wire) for at in places]
            name = f"HorovodAllreduce_{dtype.name}"
            reduced = hvd.grouped_allreduce(group, op=hvd.Average, name=name, ignore_name_scope=True)
            for at, tensor in zip(places, reduced, strict=True):
                means[at] = tf.cast(tensor, dtype)
        return means

    def sum_arrays(self, arrays: Sequence[Array]) -> list[Array]:
        hvd = _horovod()
        total = hvd.allreduce(tf.constant(as_float64(arrays)), op=hvd.Sum, name="HorovodAllreduce_arrays")
        return like(np.asarray(total), arrays)

    def gather_rows(self, array: Array) -> Array:
        return np.asarray(_horovod().allgather(tf.constant(array), name="HorovodAllgather_rows"))

    def broadcast(self, variables: Sequence[Any]) -> None:
        _horovod().broadcast_variables([variable.value for variable in variables], root_rank=0)


def _horovod() -> Any:
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise ConfigError(f"the horovod strategy needs Horovod, which is not installed ({error}); {_INSTALL}") from None
    return hvd


def _pin_gpu(world: World) -> None:
    """Let this process see only the GPU of its local rank, and take its memory as needed."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    # A launcher may have shown this process its own GPU only (Slurm's --gpus-per-task does).
    alone = len(gpus) == 1 and world.local_size > 1
    at = 0 if alone else world.local_rank
    if at >= len(gpus):
        raise ConfigError(
            f"rank {world.rank} is process {world.local_rank} on its host, which has {len(gpus)} GPUs; "
            "start at most one process per GPU"
        )
    tf.config.set_visible_devices(gpus[at], "GPU")
    tf.config.experimental.set_memory_growth(gpus[at], True)


def _dense(gradient: Any) -> Any:
    return tf.convert_to_tensor(gradient) if isinstance(gradient, tf.IndexedSlices) else gradient
