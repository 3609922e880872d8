"""tf.data: as its guides show, and tuned by hand.

By hand: reduced decoding where the image is large, fast DCT and upsampling, a fixed number of calls in flight, and a
private thread pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy.typing as npt

from benchmarks.loader.corpus import BATCH, SIZE, Corpus


def open_way(
    corpus: Corpus,
    cores: int,
    tuned: bool,
    reduce: bool = False,
    fast: bool = False,
    calls: int = 0,
    pool: int = 0,
) -> Callable[[], Iterator[npt.NDArray[Any]]]:
    """See the package.

    Args:
        corpus: the files.
        cores: that may be used.
        tuned: by hand.
        reduce: decode at a reduced scale.
        fast: the faster DCT and upsampling.
        calls: in flight for each core; 0 lets tf.data choose.
        pool: threads for each core in a pool of its own; 0: TensorFlow's pool.
    """
    import tensorflow as tf

    jpeg = corpus.kind.suffix == "jpg"

    def decoded(content: Any) -> Any:
        if not jpeg:
            return tf.io.decode_png(content, channels=3)
        if not tuned:
            return tf.io.decode_jpeg(content, channels=3)
        return tf.io.decode_jpeg(
            content,
            channels=3,
            ratio=corpus.kind.reduction if reduce else 1,
            fancy_upscaling=not fast,
            dct_method="INTEGER_FAST" if fast else "INTEGER_ACCURATE",
        )

    def read(path: Any) -> Any:
        image = tf.image.resize(decoded(tf.io.read_file(path)), (SIZE, SIZE))
        return tf.cast(image, tf.uint8)

    paths = corpus.paths()
    in_flight = calls * cores if calls else tf.data.AUTOTUNE
    data = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths))
    data = data.map(read, num_parallel_calls=in_flight, deterministic=False).batch(BATCH)
    options = tf.data.Options()
    if pool:
        options.threading.private_threadpool_size = pool * cores
        options.threading.max_intra_op_parallelism = 1
    data = data.prefetch(tf.data.AUTOTUNE).with_options(options)
    return data.as_numpy_iterator  # type: ignore[no-any-return]
