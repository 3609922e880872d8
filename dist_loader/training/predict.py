"""Outputs of a model for the samples of all ranks."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dist_loader.devices import Array, Devices
from dist_loader.errors import SampleError
from dist_loader.training.feed import Feed
from dist_loader.training.slices import Slices

_BYTES_AT_ONCE = 64 << 20  # gathered from all ranks in one message


def local_outputs(model: Any, sequence: Feed, callbacks: list[keras.callbacks.Callback]) -> tuple[Array, Any]:
    """This rank's sample numbers, int64, and the outputs for them, without those of fill and repeats.

    The outputs for a sample that could not be read are NaN.

    Raises:
        ConfigError: the sequence drops samples, or goes over them several times.
        SampleError: a sample could not be read, and an output is of a type without NaN.
    """
    epoch = sequence.epoch
    sequence.refuse_to_predict()
    with _in_slices(model, sequence.plan.accumulate), sequence.of_one_length():  # Keras puts the outputs end to end
        outputs = model.predict(sequence, verbose=0, callbacks=callbacks)
    rows, real = sequence.rows_of(epoch)
    numbers = rows[real]
    unread = np.isin(numbers, list(sequence.missing(epoch)))
    return numbers, keras.tree.map_structure(lambda output: _without(output[real], unread, numbers, sequence), outputs)


def _without(output: Array, unread: Array, numbers: Array, sequence: Feed) -> Array:
    """The output with NaN for the samples that could not be read: what the model saw in their place was another."""
    if not unread.any():
        return output
    if not np.issubdtype(output.dtype, np.inexact):
        sample = int(numbers[unread][0])
        reason = f"it could not be read, and an output of type {output.dtype} has no NaN to say so"
        raise SampleError(sample, sequence.name(sample), reason, sequence.world.rank)
    output[unread] = np.nan
    return output


@contextmanager
def _in_slices(model: Any, slices: int) -> Iterator[None]:
    """Let a model's predict step compute one slice of a batch at a time."""
    if slices == 1:
        yield
        return
    own = functools.partial(type(model).predict_step, model)
    model.predict_step = lambda data: Slices(data, slices).mapped(own)
    model.predict_function = None
    try:
        yield
    finally:
        model.predict_step = own
        model.predict_function = None


def save_outputs(numbers: Array, outputs: Any, folder: Path, rank: int) -> None:
    """Write one rank's sample numbers and outputs as .npy files."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"numbers-rank-{rank}.npy", numbers)
    flat = keras.tree.flatten(outputs)
    for at, output in enumerate(flat):
        name = f"outputs-rank-{rank}.npy" if len(flat) == 1 else f"outputs-{at}-rank-{rank}.npy"
        np.save(folder / name, output)


def in_index_order(devices: Devices, numbers: Array, outputs: Any) -> Any:
    """All ranks' outputs in the order of the index on rank 0, None elsewhere."""
    lengths = devices.gather_rows(np.array([len(numbers)]))
    samples, most_rows = int(lengths.sum()), int(lengths.max())
    chief = devices.world.chief

    def gathered(output: Array) -> Array | None:
        whole = np.empty((samples, *output.shape[1:]), output.dtype) if chief else None
        row_bytes = max(1, output.itemsize * math.prod(output.shape[1:]))
        piece = max(1, _BYTES_AT_ONCE // (row_bytes * devices.world.size))
        for at in range(0, most_rows, piece):
            where = devices.gather_rows(numbers[at : at + piece])
            rows = devices.gather_rows(output[at : at + piece])
            if whole is not None:
                whole[where] = rows
        return whole

    found = keras.tree.map_structure(gathered, outputs)
    return found if chief else None
