"""Keras callbacks on many ranks: one writer, and one decision to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.world import World

_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


def on_rank_zero(callback: keras.callbacks.Callback, world: World | None = None) -> keras.callbacks.Callback:
    """A callback that writes files or speaks, for rank 0 alone; the other ranks get one that does nothing.

    Keras's own writers need no such line: `Strategy.fit` sees to them.

    Args:
        callback: called on rank 0.
        world: this process among all; detected if not given.
    """
    return callback if (world or World.detect()).chief else keras.callbacks.Callback()


def for_this_rank(callbacks: Sequence[keras.callbacks.Callback], world: World) -> list[keras.callbacks.Callback]:
    """The callbacks that a rank calls: all of them, but for Keras's writers, which are rank 0's.

    Raises:
        ConfigError: `BackupAndRestore` on several ranks.
    """
    if world.size == 1:
        return list(callbacks)
    if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks):
        raise ConfigError(
            "BackupAndRestore lets every rank write the same file and repeats the samples of a broken-off epoch; "
            "use fit(checkpoint_dir=...), which does neither"
        )
    return [callback for callback in callbacks if world.chief or not isinstance(callback, _WRITERS)]


class StopFlag:
    """A wish to stop, which travels with the gradients, so that all ranks learn of it after the same step."""

    def __init__(self) -> None:
        self._wish = tf.Variable(0.0, trainable=False, name="stop_wish")
        self._wishes = tf.Variable(0.0, trainable=False, name="stop_wishes")

    def wish_in_step(self) -> Any:
        """This rank's wish, a scalar tensor to be summed over the ranks."""
        return self._wish.read_value()

    def agree_in_step(self, wishes: Any) -> None:
        """Take note of the sum."""
        self._wishes.assign(wishes)

    def wish(self) -> None:
        """Ask for a stop, to be known to all after the next step."""
        self._wish.assign(1.0)

    def wished(self) -> bool:
        """Whether this rank asked for a stop."""
        return bool(self._wish.numpy() > 0)

    def agreed(self) -> bool:
        """Whether any rank had asked for a stop before the last step."""
        return bool(self._wishes.numpy() > 0)

    def reset(self) -> None:
        """Forget all wishes, as a training begins."""
        self._wish.assign(0.0)
        self._wishes.assign(0.0)


class StopTogether(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets all ranks stop after the same step when a callback of one of them stops the training.

    Keras would leave its loop on that rank alone, and the others would wait for it for ever. It must be the last of
    the callbacks. A stop in the middle of an epoch comes one step later than on one process.
    """

    def __init__(self, devices: Devices, flag: StopFlag) -> None:
        super().__init__()
        self._devices = devices
        self._flag = flag

    def on_train_begin(self, logs: Any = None) -> None:
        self._flag.reset()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._flag.agreed():
            self.model.stop_training = True
        elif self.model.stop_training:
            self.model.stop_training = False
            self._flag.wish()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        wish = np.array([float(self.model.stop_training or self._flag.wished())])
        self.model.stop_training = bool(self._devices.sum_arrays([wish])[0][0] > 0)
