"""What a sequence is made of: which samples there are, what reads them, and what Keras gets of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import keras
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from dist_loader.arrays import Arrays
    from dist_loader.plan import Plan
    from dist_loader.readers import Reader
    from dist_loader.readers.clock import DecodeClock
    from dist_loader.sequence.order import Order

Numbers = npt.NDArray[np.int64]


class Column(Protocol):
    """Something that is known of every sample and kept in memory, such as its label: `column[numbers]`."""

    def __getitem__(self, numbers: Numbers) -> npt.NDArray[Any]:
        """What is known of some samples, shape (n, ...)."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of a sequence.

    Attributes:
        count: how many there are.
        identify: makes a text that changes when they do, their number or their order. Called only if it is needed.
        labels: (count,) integers; None if they have none.
        classes: names of the labels, if they have names.
    """

    count: int
    identify: Callable[[], str]
    labels: npt.NDArray[np.integer] | None = None
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.count

    @cached_property
    def fingerprint(self) -> str:
        """A text that changes when the samples do, their number or their order."""
        return self.identify()

    @cached_property
    def label_count(self) -> int:
        """How many labels there are."""
        if self.labels is None:
            return 0
        return len(self.classes) or (int(self.labels.max()) + 1 if len(self.labels) else 0)


@dataclass(frozen=True, eq=False)
class Structure:
    """How the arrays of a batch become what Keras takes: structures whose leaves say where an array comes from.

    Attributes:
        x: inputs, as `keras.tree` takes them. A leaf is the name of one of the reader's arrays, or a `Column`.
        y: targets, in the same way; None if there are none.
        weight: the weights of a sample's parts, such as its tokens; None if there are none.
    """

    x: Any
    y: Any = None
    weight: str | Column | None = None

    def batch(self, arrays: Arrays, numbers: Numbers) -> tuple[Any, Any | None, npt.NDArray[Any] | None]:
        """Inputs, targets and weights, each an array or a structure of arrays, shape (n, ...).

        Args:
            arrays: what the reader wrote.
            numbers: the samples in them, int64, shape (n,).
        """

        def part(leaf: Any) -> Any:
            if not isinstance(leaf, str):
                return leaf[numbers]
            return arrays[leaf] if isinstance(arrays, dict) else arrays

        y = None if self.y is None else keras.tree.map_structure(part, self.y)
        return keras.tree.map_structure(part, self.x), y, None if self.weight is None else part(self.weight)


@dataclass(frozen=True, eq=False)
class Varying:
    """Arrays of which a batch has only the beginning of the second axis.

    Attributes:
        names: of the reader's arrays.
        length: how much of it a batch needs, from the samples that count in it on all ranks together, so that it is as
            long on each.
    """

    names: Collection[str]
    length: Callable[[Numbers], int]


@dataclass(frozen=True, eq=False)
class Data:
    """All that a sequence must know of a kind of data.

    Attributes:
        samples: which there are.
        reader: reads them.
        form: what becomes of what was read.
        recipe: all that decides a sample's content, apart from the samples themselves, for ranks to compare.
        clock: knows which threads take too long for a sample; None: no limit but that of the batch.
        threads: that read; None: as many as this rank's share of the cores.
        varying: which of the reader's arrays are not as long in every batch; None: all are.
        order: from a plan and the user's own order of its samples to another; None: it stays.
    """

    samples: Samples
    reader: Reader
    form: Structure
    recipe: str
    clock: DecodeClock | None = None
    threads: int | None = None
    varying: Varying | None = None
    order: Callable[[Plan, Order | None], Order] | None = None
