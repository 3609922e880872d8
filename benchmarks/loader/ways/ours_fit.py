"""dist_loader's ImageSequence through `model.fit`, with a model that computes nothing.

Its train step counts the images and adds up some of their pixels, and does no more: what is left is the loader, Keras
and the way between them. The count is what shows that every batch came.
"""

from __future__ import annotations

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

    empty = Empty()
    empty.compile()

    def epoch(seen: Seen) -> None:
        sequence.read_ahead_to(sequence.epoch + 1)
        if seen.thorough:
            looking = Looking(seen)
            looking.compile()
            looking.fit(sequence, verbose=0)
            sequence.read_ahead_to(sequence.epoch + 1)
            empty.fit(sequence, verbose=0)  # traces its train step
            return
        empty.images.assign(0)
        empty.sample.assign(0)
        empty.fit(sequence, verbose=0)
        seen.images, seen.sample = int(empty.images.numpy()), int(empty.sample.numpy())

    return epoch
