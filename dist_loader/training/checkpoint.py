"""Checkpoints at the end of every epoch, written by rank 0, whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from dist_loader.errors import ConfigError
from dist_loader.sequence import ImageSequence

_STATE = "state.json"


@dataclass(frozen=True)
class LoaderState:
    """Where a training stands. These integers and the weights are all that it takes to go on.

    Attributes:
        epoch: epochs done.
        seed: of the shuffling.
        samples: samples in the index.
        global_batch: samples behind one update.
        fingerprint: of the index.
    """

    epoch: int
    seed: int
    samples: int
    global_batch: int
    fingerprint: str

    @classmethod
    def of(cls, train: ImageSequence, epoch: int) -> LoaderState:
        """The state of a sequence after `epoch` epochs."""
        plan = train.plan
        return cls(epoch, plan.seed, plan.samples, plan.global_batch, train.index.fingerprint)


class CheckpointWriter(keras.callbacks.Callback):  # type: ignore[misc]
    """Saves weights, optimizer and loader state after every epoch. For rank 0 alone."""

    def __init__(self, directory: str | Path, train: ImageSequence) -> None:
        super().__init__()
        self._directory = Path(directory)
        self._train = train

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        state = LoaderState.of(self._train, epoch + 1)
        weights = self._directory / f"epoch-{state.epoch:05d}.weights.h5"
        part = self._directory / f"part-{state.epoch:05d}.weights.h5"
        self.model.save_weights(part)
        _replace(part, weights)
        # From here on the new weights are the checkpoint; before, the old ones were.
        part = self._directory / f".{_STATE}.part"
        part.write_text(json.dumps({**asdict(state), "weights": weights.name}, indent=2) + "\n", encoding="utf-8")
        _replace(part, self._directory / _STATE)
        for old in self._directory.glob("*.weights.h5"):
            if old != weights:
                old.unlink()


def restore(model: Any, directory: str | Path, train: ImageSequence) -> int:
    """Load the last checkpoint of a directory into a built and compiled model. For rank 0 alone.

    Args:
        model: gets the weights and the state of its optimizer.
        directory: made if it is not there.
        train: what the training goes on with.

    Returns:
        How many epochs are done: 0 if there is no checkpoint.

    Raises:
        ConfigError: the checkpoint is of another training, or cannot be read.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        content = json.loads((directory / _STATE).read_text(encoding="utf-8"))
        weights = directory / content.pop("weights")
        saved = LoaderState(**content)
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(
            f"cannot read the checkpoint {directory / _STATE}: {error}; remove it to start over"
        ) from None
    now = asdict(LoaderState.of(train, saved.epoch))
    for name, value in asdict(saved).items():
        if value != now[name]:
            raise ConfigError(
                f"the checkpoint in {directory} has {name} {value}, this training {now[name]}; "
                "give another checkpoint_dir to start anew"
            )
    try:
        model.load_weights(weights)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the checkpoint {weights} does not fit this model: {reason}") from error
    return saved.epoch


def _replace(part: Path, target: Path) -> None:
    """Make `part` the file `target`, after its content has reached the disk."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
