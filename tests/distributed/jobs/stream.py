"""Streams on real ranks, one case after the other; each rank writes what it saw.

stream.py OUT
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np

import dist_loader as dl


def numbers(count: int, start: int = 0):
    """A stream whose items are their own targets."""
    for number in range(start, start + count):
        yield np.zeros(2, np.float32), np.float32(number)


class Leave(keras.callbacks.Callback):
    """Breaks the training off after a step, on all ranks."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 4:
            raise dl.DistLoaderError("left")


class Stop(keras.callbacks.Callback):
    """Stops the training after a step, on all ranks."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.model.stop_training = True


def main(out: str) -> None:
    """All cases, with one model that predicts 0 and learns nothing: its loss is the mean of all targets."""
    strategy = dl.init()
    rank = strategy.world.rank
    seen: dict = {}
    with strategy.scope():
        model = keras.Sequential([keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile(keras.optimizers.SGD(0.0), "mae")

    def fit(name, make, epochs=1, valid=None, callbacks=(), kept=None, **how):
        sequence = dl.StreamSequence(make, 4, 16, strategy=strategy, threads=2, **how)
        try:
            history = strategy.fit(
                model,
                sequence,
                valid,
                epochs=epochs,
                verbose=0,
                callbacks=callbacks,
                checkpoint_dir=kept,
                checkpoint_every=3,
            )
        except dl.DistLoaderError as error:
            seen[name] = f"{type(error).__name__}: {error}"
            return
        summary = history.summary
        seen[name] = {"history": history.history, "steps": summary.steps_per_epoch, "samples": summary.samples}

    mapped = []

    def note(item):
        mapped.append(int(item[1]))
        return item

    valid = dl.StreamSequence(lambda: numbers(5), 4, strategy=strategy)
    fit("equal", lambda: numbers(23), epochs=2, valid=valid, map=note)
    seen["mapped"] = mapped[:]
    mapped.clear()
    fit("left", lambda: numbers(75), map=note, kept=Path(out) / "kept", callbacks=[Leave()])
    mapped.clear()
    fit("gone on", lambda: numbers(75), map=note, kept=Path(out) / "kept")
    seen["mapped after going on"] = mapped[:]
    fit("sharded", lambda rank: numbers(9 + 5 * rank, 100 * rank))
    fit("cut", numbers(80), epochs=3, steps_per_epoch=3)
    fit("stopped", lambda: numbers(10_000), epochs=3, callbacks=[Stop()])
    fit("after", lambda: numbers(8))

    def different():
        yield from numbers(20, start=rank)

    fit("different", different)

    def raises():
        yield from numbers(30)
        if rank == 1:
            raise ValueError("the disk is gone")
        yield from numbers(30, 30)

    fit("raises", raises)

    def blocks(rank):
        yield from numbers(12)
        time.sleep(4 * rank)

    fit("blocks", blocks, timeout=1)
    fit("empty", lambda rank: numbers(12 - 12 * rank))
    outputs = strategy.predict(model, dl.StreamSequence(lambda: numbers(11), 4, strategy=strategy))
    seen["predicted"] = None if outputs is None else list(outputs.shape)
    (Path(out) / f"rank-{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
