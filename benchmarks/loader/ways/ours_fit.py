"""dist_loader's ImageSequence through `model.fit`, with a model that computes nothing.

Its train step counts the images and adds up some of their pixels, and does no more: what is left is the loader, Keras
and the way between them. The count is what shows that every batch came.

A round is an epoch of one long `fit`, which waits in a thread between the rounds: what a call of `fit` takes by itself,
some 0.1 s of processor time, would be a tenth of a round and is nothing of a training.
"""

from __future__ import annotations

import threading
import weakref
from queue import SimpleQueue
from typing import Any

from benchmarks.loader.corpus import Corpus
from benchmarks.loader.measure import Epoch, Seen
from benchmarks.loader.ways.ours import open_sequence

OBSERVES = True


def open_way(corpus: Corpus, cores: int, threads: float) -> Epoch:
    """See the package."""
    import keras
    import tensorflow as tf

    sequence = open_sequence(corpus, cores, threads)

    class Empty(keras.Model):  # type: ignore[misc]
        """Looks at a few pixels of each batch."""

        def __init__(self) -> None:
            super().__init__()
            self.images = tf.Variable(0, dtype=tf.int64)
            self.sample = tf.Variable(0, dtype=tf.int64)

        def train_step(self, data: Any) -> dict[str, Any]:
            images = data[0]
            self.images.assign_add(tf.shape(images, tf.int64)[0])
            self.sample.assign_add(tf.reduce_sum(tf.cast(images[:, ::32, ::32], tf.int64)))
            return {"images": self.images + 0}

    class Looking(keras.Model):  # type: ignore[misc]
        """Hands each batch to a `Seen`."""

        def __init__(self, seen: Seen) -> None:
            super().__init__()
            self.seen = seen

        def train_step(self, data: Any) -> dict[str, Any]:
            tf.numpy_function(self.seen.add, [data[0]], [])
            return {"images": tf.shape(data[0])[0]}

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        """Lets `fit` run one epoch at a time."""

        def __init__(self) -> None:
            super().__init__()
            self.begun: SimpleQueue[bool] = SimpleQueue()
            self.ended: SimpleQueue[BaseException | None] = SimpleQueue()

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if not self.begun.get():
                raise SystemExit  # of this thread: nobody wants another epoch
            sequence.read_ahead_to(sequence.epoch + 1)  # nothing of the next round is read in this one

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.ended.put(None)

        def next(self) -> None:
            """Run an epoch to its end."""
            self.begun.put(True)
            if (error := self.ended.get()) is not None:
                raise error

    empty, turns = Empty(), Turns()
    empty.compile()

    def train() -> None:
        try:
            empty.fit(sequence, epochs=1 << 30, verbose=0, callbacks=[turns])
        except BaseException as error:  # noqa: BLE001 (whatever it is, who waits for the epoch gets it)
            turns.ended.put(error)

    def epoch(seen: Seen) -> None:
        if seen.thorough:
            looking = Looking(seen)
            looking.compile()
            sequence.read_ahead_to(sequence.epoch + 1)
            looking.fit(sequence, verbose=0)
            threading.Thread(target=train, daemon=True).start()
            turns.next()  # traces its train step
            return
        empty.images.assign(0)
        empty.sample.assign(0)
        turns.next()
        seen.images, seen.sample = int(empty.images.numpy()), int(empty.sample.numpy())

    weakref.finalize(epoch, turns.begun.put, False)
    return epoch
