"""The folder of a training's checkpoints: the last few and the best, each one whole or not there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from dist_loader.atomic import flush_names, write_whole
from dist_loader.errors import CheckpointError
from dist_loader.lock import took_lock
from dist_loader.training.checkpoint import archive
from dist_loader.training.checkpoint.position import Position

_NAME = re.compile(r"epoch-([0-9]{5,})-step-([0-9]{9,})\.npz", re.ASCII)
_BEST = "best.json"
_PART = ".part"

_log = logging.getLogger("dist_loader")


@dataclass(frozen=True)
class Content:
    """What is in a checkpoint.

    Attributes:
        path: where it was read from.
        position: where the training stood.
        state: what is not an array, as it is in JSON.
        arrays: by their names.
    """

    path: Path
    position: Position
    state: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Monitor:
    """The figure that tells which checkpoint is the best one.

    Attributes:
        name: of a metric or loss, those of the validation with "val_" before.
        largest: whether more is better.
    """

    name: str
    largest: bool

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value beats another; one that is not a number beats none."""
        if math.isnan(value):
            return False
        return than is None or (value > than if self.largest else value < than)


class Folder:
    """The checkpoints in a folder. For rank 0 alone."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._held: int | None = None

    def prepare(self, patience: float = 30.0) -> None:
        """Make the folder if it is not there, keep others from it, and clear away what a killed writer left.

        Until `release`, or the end of this process, however it comes.

        Args:
            patience: seconds that another training is waited for, which may be about to end.

        Raises:
            CheckpointError: it cannot be made, or another training on this host writes to it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._hold(time.monotonic() + patience)
            self.clear_parts()
        except OSError as error:
            raise CheckpointError(f"rank 0: cannot use checkpoint_dir {str(self.path)!r}: {error.strerror}") from error

    def _hold(self, deadline: float) -> None:
        """Lock the folder itself. That leaves no file behind, and is gone with the process.

        Network file systems mostly have no such lock. There, a host that lost its power would keep it.
        """
        if self._held is None:
            self._held = os.open(self.path, os.O_RDONLY)
        while not _locked(self._held):
            if time.monotonic() > deadline:
                self.release()
                raise CheckpointError(
                    f"rank 0: another training on this host writes to checkpoint_dir {str(self.path)!r}; end it, or "
                    "give another checkpoint_dir"
                )
            time.sleep(0.2)

    def release(self) -> None:
        """Let others write to the folder."""
        if self._held is not None:
            with contextlib.suppress(OSError):  # of which a process that was forked off may have a copy
                fcntl.flock(self._held, fcntl.LOCK_UN)
            os.close(self._held)
            self._held = None

    def clear_parts(self) -> None:
        """Remove what was not written to its end."""
        for part in self.path.glob(f".*{_PART}"):
            part.unlink(missing_ok=True)

    def positions(self) -> dict[Position, Path]:
        """The checkpoints that are there, the oldest first."""
        found = ((_NAME.fullmatch(path.name), path) for path in self.path.iterdir())
        return dict(sorted((Position(int(name[1]), int(name[2])), path) for name, path in found if name))

    def last(self) -> Content | None:
        """The newest checkpoint that can be read; a damaged one is named, and the one before it is taken.

        Raises:
            CheckpointError: there are checkpoints, and none of them can be read.
        """
        there = self.positions()
        damaged = []
        for position, path in reversed(there.items()):
            try:
                return _read(path, position)
            except archive.Damaged as error:
                damaged.append(f"{str(path)!r} is damaged ({error})")
                _log.warning("rank 0: the checkpoint %s; using the one before", damaged[-1])
        if damaged:
            raise CheckpointError(
                f"rank 0: no checkpoint can be read: {'; '.join(damaged)}; remove them or give another checkpoint_dir "
                "to start over"
            )
        return None

    def best(self) -> Content:
        """The checkpoint that `best.json` names.

        Raises:
            CheckpointError: there is none, or it cannot be read.
        """
        path, position = self.path, Position()
        try:
            path = self.path / json.loads((self.path / _BEST).read_text(encoding="utf-8"))["file"]
            name = _NAME.fullmatch(path.name)
            if name is None:
                raise ValueError(f"{path.name} is no checkpoint's name")
            position = Position(int(name[1]), int(name[2]))
            return _read(path, position)
        except FileNotFoundError:
            raise CheckpointError(
                f"there is no {_BEST} in {str(self.path)!r}, or not the checkpoint that it names"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, archive.Damaged) as error:
            raise CheckpointError(f"cannot read the best checkpoint in {str(self.path)!r}: {error}") from None

    def write(
        self, position: Position, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]], keep: int
    ) -> Path:
        """Write a checkpoint, and then remove those that are neither among the last `keep` nor the best.

        Raises:
            CheckpointError: it cannot be written. Those from before are still there.
        """
        target = self.path / f"epoch-{position.epoch:05d}-step-{position.step:09d}.npz"
        part = target.with_name(f".{target.name}{_PART}")
        try:
            with part.open("wb") as file:
                archive.write(file, state, arrays)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            flush_names(self.path)
        except OSError as error:
            raise CheckpointError(
                f"rank 0: cannot write the checkpoint {str(target)!r}: {error.strerror or error}; "
                f"{self._what_is_left(part)} and start the same command again"
            ) from error
        self._prune(keep)
        return target

    def _what_is_left(self, part: Path) -> str:
        """What is there when a checkpoint could not be written, and what to do."""
        try:
            part.unlink(missing_ok=True)
            before = next(reversed(self.positions().values()), None)
        except OSError:  # as when somebody removed the folder
            return "the folder cannot be read any more; mend that"
        kept = "there is none before it" if before is None else f"the one before, {before.name}, is still there"
        return f"{kept}; make room"

    def note_best(self, path: Path, monitor: Monitor, value: float) -> None:
        """Write down that a checkpoint is the best so far, if it is."""
        if monitor.better(value, self.best_value(monitor)):
            write_whole(self.path / _BEST, json.dumps({"file": path.name, monitor.name: value}) + "\n")

    def best_value(self, monitor: Monitor) -> float | None:
        """The monitored figure of the best checkpoint so far; None if there is none."""
        value = self._noted_best().get(monitor.name)
        return float(value) if isinstance(value, int | float) else None

    def _noted_best(self) -> dict[str, Any]:
        try:
            noted = json.loads((self.path / _BEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) and (self.path / str(noted.get("file"))).exists() else {}

    def _prune(self, keep: int) -> None:
        best = self._noted_best().get("file")
        for old in list(self.positions().values())[:-keep]:
            if old.name != best:
                old.unlink(missing_ok=True)

    def clear_after(self, position: Position) -> None:
        """Remove checkpoints later than a position: damaged ones, passed over."""
        for later, path in self.positions().items():
            if later > position:
                path.unlink(missing_ok=True)


def _read(path: Path, position: Position) -> Content:
    try:
        with path.open("rb") as file:
            return Content(path, position, *archive.read(file))
    except OSError as error:
        raise archive.Damaged(f"it cannot be read: {error.strerror}") from None


def _locked(fd: int) -> bool:
    """Whether this process has got the lock of what is open; yes where there are no locks."""
    try:
        return took_lock(fd)
    except OSError:
        return True
