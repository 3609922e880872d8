"""How a step runs on many devices: one small interface, three ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dist_loader.channel import Channel
from dist_loader.world import World

Array = npt.NDArray[Any]


class Devices(Protocol):
    """What the training needs of the devices, whichever they are.

    Two reductions take place, and they are kept apart: over the replicas that one process drives (inside Keras's own
    step, by tf.distribute), and over the processes of the world (by Horovod).
    """

    @property
    def name(self) -> str:
        """`"single"`, `"mirrored"` or `"horovod"`."""

    @property
    def world(self) -> World:
        """This process among all."""

    @property
    def channel(self) -> Channel:
        """What else the ranks of the world say to each other."""

    @property
    def replicas(self) -> int:
        """Devices that this process drives."""

    def scope(self) -> AbstractContextManager[Any]:
        """Models are built and compiled in here."""

    def adapt(self, model: Any) -> None:
        """Set what a compiled model needs here, or refuse one that would not train exactly. Twice is as once.

        Raises:
            ConfigError: what is in the way, and what to do.
        """

    def sum_over_replicas(self, value: Any) -> Any:
        """A scalar tensor's sum over this process's replicas. Called inside a step, on every replica."""

    def sum_in_step(self, values: Sequence[Any], name: str | None = None) -> list[Any]:
        """Tensors' sums over all replicas of the world. Called inside a step, on every replica; has a gradient.

        Args:
            values: floating-point or whole numbers, of the same shapes everywhere.
            name: of the message; made from the graph if not given.
        """

    def mean_gradients(
        self, gradients: Sequence[Any], share: Any | None, riders: Sequence[Any] = ()
    ) -> tuple[list[Any], list[Any]]:
        """Gradients averaged over the world. Called inside a step, on every rank.

        Args:
            gradients: dense tensors, `tf.IndexedSlices` or None, of the mean loss over this process's real samples.
            share: scalar float32 tensor, this process's real samples / its batch, which is the weight of its
                gradients in the average; None when every sample is real on every rank.
            riders: small float32 tensors that travel along.

        Returns:
            The gradients' averages, and the riders' sums over the ranks.
        """

    def sum_arrays(self, arrays: Sequence[Array]) -> list[Array]:
        """Arrays summed over the world, element by element, in their own types. Called outside of steps."""

    def gather_rows(self, array: Array) -> Array:
        """The rows of all ranks' arrays, in the order of the ranks; they may have different numbers of rows."""

    def gatherer(self, name: str) -> Callable[[Array], Array]:
        """A function as `gather_rows` for arrays of one shape on all ranks, for one other thread, while steps run.

        Args:
            name: of its messages, the same on all ranks and no other function's.
        """

    def broadcast(self, variables: Sequence[Any]) -> None:
        """Give Keras variables rank 0's values. Called outside of steps."""


def as_float64(arrays: Sequence[Array]) -> Array:
    """Arrays end to end in one, so that they travel in one message."""
    return np.concatenate([np.ravel(array).astype(np.float64) for array in arrays] or [np.empty(0)])


def like(flat: Array, arrays: Sequence[Array]) -> list[Array]:
    """The inverse of `as_float64`: parts of `flat` with the shapes and types of `arrays`."""
    parts = np.split(flat, np.cumsum([array.size for array in arrays])[:-1]) if arrays else []
    return [part.reshape(array.shape).astype(array.dtype) for part, array in zip(parts, arrays, strict=True)]
