"""A checkpoint's weights for a model of one's own: to evaluate, to predict, to export."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import keras

from dist_loader.errors import CheckpointError, ConfigError
from dist_loader.training.checkpoint.folder import Folder
from dist_loader.training.checkpoint.snapshot import not_trained, of_rank

Which = Literal["last", "best"]


def load_checkpoint(model: keras.Model, directory: str | Path, which: Which = "best") -> Path:
    """Give a built model the weights of a checkpoint; its optimizer stays as it is.

    Args:
        model: of the same layers as the one that was trained.
        directory: what was `checkpoint_dir`.
        which: the "best" one, or the "last".

    Returns:
        The file that they were read from.

    Raises:
        CheckpointError: there is none, or it cannot be read.
        ConfigError: the model has other weights, or `which` is something else.
    """
    if which not in get_args(Which):
        raise ConfigError(f"which must be one of {', '.join(get_args(Which))}, not {which!r}")
    folder = Folder(directory)
    if not folder.path.is_dir():
        raise CheckpointError(f"there is no folder of checkpoints at {str(folder.path)!r}")
    content = folder.best() if which == "best" else folder.last()
    if content is None:
        raise CheckpointError(f"there is no checkpoint in {str(folder.path)!r}")
    described = content.state["variables"]
    others = not_trained(model)
    found: list[tuple[Any, Any]] = []
    for group, variables in (("shared", model.trainable_variables), ("own", others)):
        if group == "own" and len(described["own"]) != len(others):
            _refuse(content.path, f"{len(described['own'])} variables that are not trained", str(len(others)))
        for at, variable in enumerate(variables):
            path, shape, dtype = described[group][at] if at < len(described[group]) else ("nothing", [], "")
            if (list(variable.shape), variable.dtype) != (shape, dtype):
                _refuse(content.path, f"{path} {tuple(shape)} {dtype}", f"{variable.path} {tuple(variable.shape)}")
            mean = keras.backend.is_float_dtype(variable.dtype)
            found.append((variable, of_rank(content.arrays, f"{group}-{at}", rank=0, mean=mean)))
    for variable, value in found:
        variable.assign(value)
    return content.path


def _refuse(path: Path, there: str, here: str) -> None:
    raise ConfigError(f"the checkpoint {str(path)!r} does not fit this model: it has {there}, the model {here}")
