"""The states of the random generators that a user's callbacks and layers may draw from.

The loader has none: its order and its crops are computed from (seed, epoch, sample).
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
from keras.src.backend.common import global_state
from keras.src.random import seed_generator

Array = npt.NDArray[Any]

NAMES = ("random-python", "random-python-normal", "random-numpy", "random-numpy-normal", "random-keras")


def get() -> dict[str, Array]:
    """The states of the global generators of Python, NumPy and Keras, by the names that they have in a checkpoint.

    Those of Python and NumPy are Mersenne Twisters: 624 words and a place, uint32, and the second of a pair of normal
    numbers, if it waits to be drawn. Keras's is two whole numbers, if it is there.
    """
    _, words, normal = random.getstate()
    numpy_state: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002 (users draw from it)
    twister = numpy_state["state"]
    states: tuple[Array, ...] = (
        np.asarray(words, np.uint32),
        np.asarray([normal is not None, normal or 0.0], np.float64),
        np.append(twister["key"], twister["pos"]).astype(np.uint32),
        np.asarray([numpy_state["has_gauss"], numpy_state["gauss"]], np.float64),
        _keras_state(),
    )
    return dict(zip(NAMES, states, strict=True))


def put_back(states: dict[str, Array]) -> None:
    """Let the generators go on from where `get` was called."""
    words, normal, key, numpy_normal, keras_state = (states[name] for name in NAMES)
    if keras_state[0]:  # first, for Keras draws from Python's when it makes its own
        seed_generator.global_seed_generator().state.assign(keras_state[1:])
    random.setstate((3, tuple(words.tolist()), float(normal[1]) if normal[0] else None))
    np.random.set_state(  # noqa: NPY002
        {
            "bit_generator": "MT19937",
            "state": {"key": key[:-1].copy(), "pos": int(key[-1])},
            "has_gauss": int(numpy_normal[0]),
            "gauss": float(numpy_normal[1]),
        }
    )


def _keras_state() -> npt.NDArray[np.int64]:
    if global_state.get_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR) is None:
        return np.zeros(3, np.int64)
    return np.append(1, np.asarray(seed_generator.global_seed_generator().state.numpy())).astype(np.int64)
