"""One process per device, gradients averaged by Horovod.

Horovod's own Keras integration does nothing on Keras 3: its `DistributedOptimizer` overrides methods that Keras 3
never calls. What is here is all that Keras 3 needs of Horovod.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from dist_loader.channel import Channel, beside_horovod
from dist_loader.devices import Array, as_float64, like
from dist_loader.devices.averaging import Compression, averaged, grouped
from dist_loader.errors import ConfigError
from dist_loader.world import World

_INSTALL = "install it with: python launch/install_horovod.py"


@dataclass(frozen=True)
class HorovodDevices:
    """The ranks of a Horovod job, each with one device.

    Attributes:
        world: this process among all.
        channel: between the ranks, beside Horovod's own messages.
        compression: of the gradients on the wire.
        groups: messages that the gradients are cut into (measured: benchmarks/results/reduction.md). The first leave
            while the backward pass goes on. Always the same ones, so that ranks add in the same order in every run.
    """

    world: World
    channel: Channel = field(compare=False)
    compression: Compression = "none"
    groups: int = 4
    name: str = "horovod"
    replicas: int = 1

    @classmethod
    def started(cls, world: World, compression: Compression = "none") -> HorovodDevices:
        """Pin this process to its GPU and join the other ranks.

        Raises:
            ConfigError: Horovod is not installed, it finds another world than the launcher's, or a GPU is missing.
        """
        _refuse_early_mpi()
        hvd = _horovod()
        _pin_gpu(world)
        # Otherwise Horovod sends together what happens to be ready together, and from 3 ranks on the order in which
        # numbers are added follows from their place in the message: the same run would differ in the last bits.
        os.environ.setdefault("HOROVOD_DISABLE_GROUP_FUSION", "1")
        # Gloo gives up after 30 s: too soon for a rank that lists files before, and for the watchdog to name one.
        os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", "300")
        hvd.init()
        found = (hvd.rank(), hvd.size())
        if found != (world.rank, world.size):
            raise ConfigError(
                f"the launcher {world.launcher} made this process rank {world.rank} of {world.size}, but Horovod sees "
                f"rank {found[0]} of {found[1]}: it was built without this launcher's MPI, or started without it"
            )
        return cls(world, beside_horovod(world), compression)

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

    def sum_in_step(self, values: Sequence[Any], name: str | None = None) -> list[Any]:
        hvd = _horovod()
        sums = list(values)
        for kind, places in _by_type(sums).items():
            named = {} if name is None else {"name": f"HorovodAllreduce_{name}_{kind.name}", "ignore_name_scope": True}
            totals = hvd.grouped_allreduce([sums[at] for at in places], op=hvd.Sum, **named)
            for at, total in zip(places, totals, strict=True):
                sums[at] = total
        return sums

    def mean_gradients(
        self, gradients: Sequence[Any], share: Any | None, riders: Sequence[Any] = ()
    ) -> tuple[list[Any], list[Any]]:
        present = [gradient for gradient in gradients if gradient is not None]
        if share is not None:
            present = [gradient * tf.cast(share, gradient.dtype) for gradient in present]
        more = [*riders] if share is None else [*riders, share]
        if self.compression == "none":  # in the group of the last layers, whose gradients come first
            means = self._means([*present, *more])
            mean, more = means[: len(present)], means[len(present) :]
        else:
            mean = self._means(present)
            more = averaged(_horovod(), more, "HorovodAllreduce_riders", "none") if more else []
        if share is not None:
            # Without any real row in the world (all bad samples) the gradients are zero, and not 0 / 0.
            mean = [tf.math.divide_no_nan(total, tf.cast(more[-1], total.dtype)) for total in mean]
        in_place = iter(mean)
        sums = [rider * self.world.size for rider in more[: len(riders)]]
        return [None if gradient is None else next(in_place) for gradient in gradients], sums

    def _means(self, tensors: list[Any]) -> list[Any]:
        """Tensors averaged over the world, in groups, for a group has one type and begins when all of it is there.

        The name must hold "HorovodAllreduce": that is how Horovod tells its own failures from others.
        """
        means = list(tensors)
        for kind, places in _by_type(tensors).items():
            sizes = [tensors[at].shape.num_elements() for at in places]
            for number, group in enumerate(grouped(sizes, self.groups)):
                chosen = [places[at] for at in group]
                name = f"HorovodAllreduce_{kind.name}_{number}"
                reduced = averaged(_horovod(), [tensors[at] for at in chosen], name, self.compression)
                for at, tensor in zip(chosen, reduced, strict=True):
                    means[at] = tensor
        return means

    def sum_arrays(self, arrays: Sequence[Array]) -> list[Array]:
        hvd = _horovod()
        total = hvd.allreduce(tf.constant(as_float64(arrays)), op=hvd.Sum, name="HorovodAllreduce_arrays")
        return like(np.asarray(total), arrays)

    def gather_rows(self, array: Array) -> Array:
        return np.asarray(_horovod().allgather(tf.constant(array), name="HorovodAllgather_rows"))

    def gatherer(self, name: str) -> Callable[[Array], Array]:
        hvd = _horovod()

        def gathered(array: Any) -> Any:
            return hvd.allgather(array, name=f"HorovodAllgather_{name}", ignore_name_scope=True)

        # Outside of a graph all messages of a kind have one name, whatever they are given, and two threads' would meet.
        function = tf.function(gathered, autograph=False)

        def gather(array: Array) -> Array:
            with tf.device("CPU:0"):  # not in the queue of the device that trains
                return np.asarray(function(tf.constant(array)))

        return gather

    def broadcast(self, variables: Sequence[Any]) -> None:
        hvd = _horovod()

        def of_rank_zero() -> list[Any]:
            return [
                hvd.broadcast(variable.value, root_rank=0, name=f"HorovodBroadcast_{at}", ignore_name_scope=True)
                for at, variable in enumerate(variables)
            ]

        if variables:
            # Not `broadcast_variables`, whose code TensorFlow converts, by way of files that stay after a kill.
            for variable, value in zip(variables, tf.function(of_rank_zero, autograph=False)(), strict=True):
                variable.assign(value)


def _horovod() -> Any:
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        raise ConfigError(f"the horovod strategy needs Horovod, which is not installed ({error}); {_INSTALL}") from None
    return hvd


def _refuse_early_mpi() -> None:
    """Open MPI that was started before TensorFlow is loaded ends in a segmentation fault.

    TensorFlow exports the functions of an hwloc of its own, and Open MPI, which looks them up at their first call, then
    releases with TensorFlow's what it has made with its own (seen with Open MPI 4.1.8 and TensorFlow 2.21).
    """
    order = list(sys.modules)
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is None or order.index("mpi4py.MPI") > order.index("tensorflow") or mpi.get_vendor()[0] != "Open MPI":
        return
    raise ConfigError(
        "mpi4py was imported before TensorFlow, and Open MPI would crash when the job ends: import tensorflow, or call "
        "dist_loader.init(), before mpi4py"
    )


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


def _by_type(tensors: Sequence[Any]) -> dict[Any, list[int]]:
    """Places of tensors by their type, which one message has one of."""
    places: dict[Any, list[int]] = defaultdict(list)
    for at, tensor in enumerate(tensors):
        places[tensor.dtype].append(at)
    return places
