"""Items whose `map` raises: which of them a training goes on without, and where they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.bad_samples import BadSamples, OnBad
from dist_loader.bad_samples.register import OF_THE_PROCESS
from dist_loader.errors import ConfigError, DistLoaderError, SampleError
from dist_loader.readers.reason import class_and_words
from dist_loader.sequence.data import Samples

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from dist_loader.stream.source import Source
    from dist_loader.world import World

BAD = object()  # what there is of an item that could not be mapped

_USUAL_BUDGET = 16  # items
_MOST_LETTERS = 500  # of a reason, which is the user's own words


class BadItems:
    """Applies `map`, and counts the items for which it raises. Any thread may call `mapped`.

    Args:
        source: of the items.
        world: this process among all.
        number: of the sequence among those of this process.
        map: the user's function; None: items stay as they are, and none is bad.
        on_bad: "raise" or "weight0".
        budget: how many items may be bad; None: 16.
        file: where they are written down; None: nowhere.

    Raises:
        ConfigError: what cannot be had of a stream, or as `BadSamples`.
    """

    def __init__(
        self,
        source: Source,
        world: World,
        number: int,
        map: Callable[[Any], Any] | None,  # noqa: A002 (as in `StreamSequence`)
        on_bad: OnBad,
        budget: int | None,
        file: str | os.PathLike[str] | None,
    ) -> None:
        if on_bad == "replace":
            raise ConfigError(
                'on_bad="replace" is not for a stream: no other item could be fetched for a bad one\'s place, the same '
                'one on any number of ranks; use "weight0"'
            )
        if on_bad == "weight0" and map is None:
            raise ConfigError(
                f'on_bad="{on_bad}" is for items whose map raises, and there is no map; do in map what may fail, for '
                "a generator that has raised cannot go on"
            )
        if budget is not None and (isinstance(budget, bool) or not isinstance(budget, int | np.integer)):
            raise ConfigError(
                f"bad_budget of a stream must be a number of items such as 100, not {budget!r}: nobody knows how many "
                "there are, to take a share of them"
            )
        self._source = source
        self._world = world
        self._map = map
        self._stream = f"stream {number}"
        samples = Samples(0, lambda: f"{source.called}, {self._stream}")
        self.register = BadSamples(
            samples, on_bad, _USUAL_BUDGET if budget is None else int(budget), 0, world.rank, file
        )
        self._rows: tuple[int, set[tuple[int, int]]] = 0, set()

    def mapped(self, item: Any, number: int, epoch: int) -> Any:
        """An item as `map` makes it; `BAD` if that raises and the training goes on.

        Args:
            item: as it was drawn.
            number: in the stream.
            epoch: that it was drawn for.

        Raises:
            TooManyBadSamples: the budget is spent.
            Exception: what `map` raised, if the policy is to raise, or it is not the item's fault.
        """
        if self._map is None:
            return item
        try:
            return self._map(item)
        except Exception as error:
            if not _of_the_item(error):
                raise
            reason = class_and_words(error)[:_MOST_LETTERS]
            self.register.note(SampleError(number, self._name(number, epoch), reason), epoch)
            if self.register.on_bad == "raise":
                raise
            return BAD

    def _name(self, number: int, epoch: int) -> str:
        """What a person would call an item: the same in all epochs and runs in which it comes again."""
        source, world = self._source, self._world
        which = [self._stream]
        if source.takes_epoch:
            which.append(f"epoch {epoch}")
        if source.sharded:
            which.append(f"rank {world.rank} of {world.size}")
        return f"item {number} of the stream {source.called} ({', '.join(which)})"

    def note_rows(self, epoch: int, step: int, rows: set[int]) -> None:
        """Remember which rows of a batch that is handed out hold no item; of the latest epoch alone."""
        if rows:
            if self._rows[0] != epoch:
                self._rows = epoch, set()
            self._rows[1].update((step, row) for row in rows)

    def rows_in(self, epoch: int) -> set[tuple[int, int]]:
        """Step and row of the bad items of this rank in the latest epoch that had some."""
        return self._rows[1] if self._rows[0] == epoch else set()


def _of_the_item(error: Exception) -> bool:
    """Whether another item may fare better."""
    for known in (error, error.__cause__, error.__context__):
        if isinstance(known, MemoryError) or (isinstance(known, OSError) and known.errno in OF_THE_PROCESS):
            return False
    return isinstance(error, SampleError) or not isinstance(error, DistLoaderError)
