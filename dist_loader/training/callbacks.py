"""Keras callbacks on many ranks: one writer, and one decision to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from dist_loader.devices import Devices
from dist_loader.errors import ConfigError
from dist_loader.training.wishes import Wish, Wishes
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
    """The callbacks that a rank calls: all of them; those of Keras that write are rank 0's, and do nothing elsewhere.

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
    if world.chief:
        return list(callbacks)
    return [keras.callbacks.Callback() if isinstance(callback, _WRITERS) else callback for callback in callbacks]


class StopTogether(keras.callbacks.Callback):  # type: ignore[misc]
    """Lets all ranks stop after the same step when a callback of one of them stops the training.

    Keras would leave its loop on that rank alone, and the others would wait for it for ever. It must be the last of
    the callbacks. A stop in the middle of an epoch comes one step later than on one process.
    """

    def __init__(self, devices: Devices, wishes: Wishes) -> None:
        super().__init__()
        self._devices = devices
        self._wishes = wishes

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if Wish.STOP in self._wishes.agreed():
            self.model.stop_training = True
        elif self.model.stop_training:
            self.model.stop_training = False
            self._wishes.wish(Wish.STOP)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        stop = np.array([float(self.model.stop_training) + self._wishes.mine()[Wish.STOP]])
        self.model.stop_training = bool(self._devices.sum_arrays([stop])[0][0] > 0)
