"""Weights that are not trained, such as batch normalisation's moving statistics, on many ranks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from dist_loader.devices import Devices
from dist_loader.training.prepare import assign


class StatisticsAverage(keras.callbacks.Callback):  # type: ignore[misc]
    """Averages the weights that are not trained over the ranks, before the model is evaluated or saved.

    Every rank keeps moving averages of what it saw itself. They are linear in it and training does not use them, so
    one average at the end of an epoch gives what an average at every step would.
    """

    def __init__(self, devices: Devices, trained: bool = False) -> None:
        super().__init__()
        self._devices = devices
        self._trained = trained  # in an epoch that goes on

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._trained = True

    def on_test_begin(self, logs: Any = None) -> None:
        self._average()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._average()

    def _average(self) -> None:
        size = self._devices.world.size
        if not self._trained or size == 1:
            return
        self._trained = False
        statistics = [v for v in self.model.non_trainable_weights if keras.backend.is_float_dtype(v.dtype)]
        if statistics:
            local = [np.asarray(v.numpy(), np.float64) for v in statistics]
            assign(statistics, [total / size for total in self._devices.sum_arrays(local)])
