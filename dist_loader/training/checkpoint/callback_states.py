"""What callbacks remember: the best value so far, how long they have waited.

Keras has no way to ask a callback for its state. What it remembers is in its plain attributes (`EarlyStopping.wait`,
`ReduceLROnPlateau.best`, `History.history`, a user's own counters): numbers, texts, lists and dictionaries of them,
and arrays. Those that have changed since the training began are its state; the others are its settings.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# `min_delta` of Keras's monitoring callbacks gets its sign when they are first asked.
_KERAS_SETS = frozenset({"params", "model", "_model", "validation_data", "min_delta"})
_HOLD_FILES = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)  # what they remember is of files now closed


class CallbackStates:
    """The states of a training's callbacks, told from their settings by what changes.

    Made when all callbacks have begun and nothing was trained yet.
    """

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback]) -> None:
        self._callbacks = list(callbacks)
        self._at_first = [copy.deepcopy(_attributes(callback)) for callback in self._callbacks]

    def get(self) -> tuple[list[dict[str, Any]], dict[str, Array]]:
        """Every callback's class and changed attributes, as JSON takes them; and the arrays among them, by name."""
        states: list[dict[str, Any]] = []
        arrays: dict[str, Array] = {}
        for number, (callback, first) in enumerate(zip(self._callbacks, self._at_first, strict=True)):
            plain, lists = {}, {}
            for name, value in _attributes(callback).items():
                if name in first and _same(first[name], value):
                    continue
                if (listed := _arrays(value)) is None:
                    plain[name] = _as_json(value)
                else:
                    lists[name] = len(listed) if isinstance(value, list | tuple) else None
                    arrays |= {f"callback-{number}-{name}-{at}": array.copy() for at, array in enumerate(listed)}
            states.append({"class": type(callback).__name__, "attributes": plain, "arrays": lists})
        return states, arrays

    def put_back(self, states: Sequence[dict[str, Any]], arrays: dict[str, Array]) -> None:
        """Give the callbacks what they remembered; those of another class than then start anew."""
        for number, (callback, state) in enumerate(zip(self._callbacks, states, strict=False)):
            if state["class"] != type(callback).__name__:
                continue
            for name, value in state["attributes"].items():
                setattr(callback, name, copy.deepcopy(value))
            for name, length in state["arrays"].items():
                count = 1 if length is None else length
                parts = [arrays[f"callback-{number}-{name}-{at}"].copy() for at in range(count)]
                there: Any = getattr(callback, name, None)
                if length is None and hasattr(there, "assign"):
                    there.assign(parts[0])  # a variable, which a compiled function may hold on to
                else:
                    setattr(callback, name, parts[0] if length is None else parts)


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    if isinstance(callback, _HOLD_FILES):
        return {}
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in _KERAS_SETS and (_is_plain(value) or _arrays(value) is not None)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(part) for key, part in value.items())
    if isinstance(value, list):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(value, bool | int | float | str | np.bool_ | np.integer | np.floating)


def _arrays(value: object) -> list[Array] | None:
    """The arrays that a value is, or is a list of; None for all else."""
    if isinstance(value, np.ndarray):
        return [value] if value.dtype.kind in "biufcV" else None
    if isinstance(value, list | tuple) and value and all(isinstance(part, np.ndarray) for part in value):
        return list(value)
    if hasattr(value, "numpy") and hasattr(value, "shape"):  # a tensor, such as the best value of a metric
        return _arrays(np.asarray(value.numpy()))
    return None


def _same(first: Any, now: Any) -> bool:
    arrays, others = _arrays(first), _arrays(now)
    if arrays is None or others is None:
        return arrays is others and bool(first == now) and type(first) is type(now)
    return len(arrays) == len(others) and all(map(np.array_equal, arrays, others))


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_json(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_as_json(part) for part in value]
    return value.item() if isinstance(value, np.generic) else value
