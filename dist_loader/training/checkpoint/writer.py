"""Writing checkpoints beside the training, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt

from dist_loader.errors import CheckpointError
from dist_loader.training.checkpoint.folder import Folder, Monitor
from dist_loader.training.checkpoint.journal import Journal
from dist_loader.training.checkpoint.position import Position
from dist_loader.training.watched import writing_a_checkpoint


class Writer:
    """Writes to a folder in a thread of its own. For rank 0 alone.

    Args:
        folder: of the checkpoints.
        journal: of the committed steps.
        keep: how many checkpoints stay, the best one not counted.
    """

    def __init__(self, folder: Folder, journal: Journal, keep: int) -> None:
        self._folder = folder
        self._journal = journal
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="dist_loader-checkpoint")
        self._under_way: Future[None] | None = None

    def begin(self, position: Position) -> None:
        """Make the folder and the log of steps end where the training goes on.

        Raises:
            OSError: the folder cannot be written to.
        """
        self._folder.clear_after(position)
        self._journal.start(position)

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._under_way is not None and not self._under_way.done()

    def submit(
        self,
        position: Position,
        state: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        monitored: tuple[Monitor, float] | None = None,
    ) -> None:
        """Write a checkpoint, after the one before; waits for that one.

        Args:
            position: where the training stands.
            state: what is not an array.
            arrays: not changed from now on.
            monitored: the figure that tells whether it is the best one.

        Raises:
            CheckpointError: the one before could not be written.
        """
        self.finish()
        self._under_way = self._thread.submit(self._write, position, state, arrays, monitored)

    def finish(self) -> None:
        """Wait until all is written.

        Raises:
            CheckpointError: it could not be.
        """
        if self._under_way is not None:
            try:
                with writing_a_checkpoint():
                    self._under_way.result()
            finally:
                self._under_way = None

    def raise_failure(self) -> None:
        """Do as `finish`, but only if that means no waiting."""
        if not self.busy:
            self.finish()

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._thread.shutdown()

    def _write(
        self,
        position: Position,
        state: Mapping[str, Any],
        arrays: Mapping[str, npt.NDArray[Any]],
        monitored: tuple[Monitor, float] | None,
    ) -> None:
        path = self._folder.write(position, state, arrays, self._keep)
        try:
            self._journal.commit(position)
            if monitored is not None:
                self._folder.note_best(path, *monitored)
        except OSError as error:
            raise CheckpointError(
                f"rank 0: wrote the checkpoint {str(path)!r}, but not what is noted beside it: "
                f"{error.strerror or error}; make room and start the same command again"
            ) from error


@contextmanager
def writing(
    folder: Folder, steps: Callable[[int], int | None], facts: dict[str, Any], start: Position, keep: int
) -> Iterator[Writer]:
    """A writer that goes on at a position, and is ended when all is written.

    Args:
        folder: of the checkpoints; there already.
        steps: of an epoch; None if they are not known.
        facts: for the log of steps.
        start: where the training goes on.
        keep: how many checkpoints stay.

    Raises:
        CheckpointError: the folder cannot be written to.
    """
    writer = Writer(folder, Journal(folder.path, steps, facts), keep)
    try:
        try:
            writer.begin(start)
        except OSError as error:
            raise CheckpointError(
                f"rank 0: cannot write to checkpoint_dir {str(folder.path)!r}: {error.strerror}; make room, or let "
                "this user write there, and start the same command again"
            ) from error
        yield writer
    finally:
        writer.close()
