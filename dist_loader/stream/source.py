"""Where the items of a stream come from: a function of the user's, an iterable, or a generator that is there once."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from dist_loader.world import World

Make = Callable[..., Iterable[Any]] | Iterable[Any]
_KNOWN = ("epoch", "rank", "world_size")


class Source:
    """Opens a stream, for one thread.

    Args:
        make: see `StreamSequence`.
        world: this process among all.
        batched: whether whole batches come, to be taken apart.
        sharded: whether this rank's stream holds its own part only.
        endless: whether all epochs are cut out of one stream.

    Raises:
        ConfigError: it is neither a function nor an iterable, or wants other arguments than it can get.
    """

    def __init__(self, make: Make, world: World, batched: bool, sharded: bool, endless: bool) -> None:
        self._make = make
        self._batched = batched
        self._endless = endless
        self._once = isinstance(make, Iterator)
        known = {"rank": world.rank, "world_size": world.size}
        asked = () if self._once or not callable(make) else _asked(make)
        if not self._once and not callable(make) and not isinstance(make, Iterable):
            raise ConfigError(f"make must be a function that returns an iterable, or an iterable, not {make!r:.80}")
        if endless and "epoch" in asked:
            raise ConfigError(
                "make takes an epoch, so each epoch has a stream of its own; leave out steps_per_epoch, which cuts all "
                "epochs out of one stream (and end the stream with itertools.islice)"
            )
        self._arguments = {name: value for name, value in known.items() if name in asked}
        self.takes_epoch = "epoch" in asked
        self.called: str = getattr(make, "__name__", type(make).__name__)
        self.sharded = sharded or bool(self._arguments)
        self._items: Iterator[Any] | None = None
        self._opened: Iterator[Any] | None = None
        self._drawn = 0  # items of the stream that is open, since its beginning
        self._begun = False

    @property
    def drawn(self) -> int:
        """The number of the next item in the stream that is open."""
        return self._drawn

    def open(self, epoch: int, first: int) -> Iterator[Any]:
        """The items of an epoch's stream, or of the one stream of all epochs, from item `drawn` on.

        Args:
            epoch: which.
            first: an item that is to come, at once or after others.

        Raises:
            ConfigError: a generator is used up.
        """
        if self._endless and self._items is not None and self._drawn <= first:
            return self
        if self._once and self._begun:
            raise ConfigError(
                f"the generator given to StreamSequence was used up before epoch {epoch}; give the function that "
                "makes it, or, to cut several epochs out of it, steps_per_epoch"
            )
        self.close()
        self._items, self._drawn, self._begun = self._new(epoch), 0, True
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        assert self._items is not None
        item = next(self._items)
        self._drawn += 1
        return item

    def put_back(self, items: list[Any]) -> None:
        """Give the last items again."""
        assert self._items is not None
        self._items = itertools.chain(items, self._items)
        self._drawn -= len(items)

    def _new(self, epoch: int) -> Iterator[Any]:
        made: Any = self._make
        if not self._once and callable(made):
            made = made(**self._arguments, **({"epoch": epoch} if self.takes_epoch else {}))
        if not isinstance(made, Iterable):
            raise ConfigError(f"make must return an iterable, not {made!r:.80}")
        self._opened = iter(made)
        return _rows(self._opened) if self._batched else self._opened

    def close(self) -> None:
        """End the stream that is open: what a generator has in its `finally` is done."""
        opened, self._opened, self._items = self._opened, None, None
        close = getattr(opened, "close", None)
        if close is not None:
            close()


def _asked(make: Callable[..., Any]) -> tuple[str, ...]:
    """Which of the arguments that there are a function takes."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # of a function in C
        return ()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for parameter in parameters:
        if parameter.default is parameter.empty and (
            parameter.kind is parameter.POSITIONAL_ONLY or (parameter in named and parameter.name not in _KNOWN)
        ):
            raise ConfigError(
                f"make is called without arguments, or by name with those of {', '.join(_KNOWN)} that it takes; it "
                f"wants {parameter.name!r} (functools.partial gives it one)"
            )
    return tuple(parameter.name for parameter in named if parameter.name in _KNOWN)


def _rows(batches: Iterator[Any]) -> Iterator[Any]:
    """The rows of batches, one by one."""
    for number, batch in enumerate(batches):
        lengths = set(_lengths(batch))
        if len(lengths) != 1:
            raise ValueError(f"batch {number} holds arrays of different lengths: {sorted(lengths)}")
        for row in range(lengths.pop()):
            yield _row(batch, row)


def _lengths(part: Any) -> Iterator[int]:
    if isinstance(part, Mapping | tuple):
        for inner in part.values() if isinstance(part, Mapping) else part:
            yield from _lengths(inner)
    else:
        yield len(part)


def _row(part: Any, row: int) -> Any:
    if isinstance(part, Mapping):
        return {key: _row(inner, row) for key, inner in part.items()}
    return tuple(_row(inner, row) for inner in part) if isinstance(part, tuple) else part[row]
