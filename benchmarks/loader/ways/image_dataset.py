"""keras.utils.image_dataset_from_directory, which gives float32, brought to uint8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, SIZE, Corpus


def open_way(corpus: Corpus, cores: int, pool: int = 0) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        pool: threads for each core in a pool of its own; 0: TensorFlow's pool.
    """
    import keras
    import tensorflow as tf

    data = keras.utils.image_dataset_from_directory(
        str(corpus.images), labels=None, image_size=(SIZE, SIZE), batch_size=BATCH, verbose=False
    )
    data = data.map(lambda images: tf.cast(images, tf.uint8), num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    if pool:
        options.threading.private_threadpool_size = pool * cores
    data = data.prefetch(tf.data.AUTOTUNE).with_options(options)
    return data.as_numpy_iterator  # type: ignore[no-any-return]
