"""One rank's part of a step while its items are drawn and mapped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.sequence.weights import mean_weights

if TYPE_CHECKING:
    import numpy.typing as npt

    from dist_loader.errors import DistLoaderError
    from dist_loader.stream.items import Kind


@dataclass(eq=False)
class Part:
    """This rank's part of a step.

    Attributes:
        epoch: of the step.
        step: in the epoch.
        arrays: of the items' kind, a row for each sample; None until there is an item.
        count: rows that items were drawn for; the others come after them.
        under_way: items that are drawn and not yet in their row.
        mark: of the first item of the step, where all ranks draw the same stream; else 0.
        bad: rows whose item could not be mapped.
        failed: why it cannot be filled, by the number of the item.
        drawn: whether no further item comes.
        ended: whether that is because this rank's stream has ended.
    """

    epoch: int
    step: int
    arrays: list[npt.NDArray[Any]] | None = None
    count: int = 0
    under_way: int = 0
    mark: int = 0
    bad: set[int] = field(default_factory=set)
    failed: dict[int, DistLoaderError] = field(default_factory=dict)
    drawn: bool = False
    ended: bool = False

    @property
    def complete(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.drawn and not self.under_way

    def for_keras(self, kind: Kind, example: Any, rows: int) -> tuple[Any, ...]:
        """`(x,)`, or `(x, y, weights)`; see `BatchSequence` for the weights of a batch that is filled up.

        A bad row shows the item of another one and has the weight of fill.

        Args:
            kind: of the items.
            example: an item, with which to fill up.
            rows: of the batch.
        """
        arrays = kind.empty(rows) if self.arrays is None else self.arrays
        real = np.arange(rows) < self.count
        real[list(self.bad)] = False
        good = np.flatnonzero(real)
        for row in np.flatnonzero(~real).tolist():
            if row < self.count and len(good):  # for batch normalisation, which knows no weights
                other = good[np.searchsorted(good, row) - 1]  # the one before, or else the last one
                for array in arrays:
                    array[row] = array[other]
            else:
                kind.write(example, arrays, row)
        x, *targets = kind.parts(arrays)
        if not targets:
            return (x,)
        given = None if kind.weight is None else arrays[kind.weight]
        of_samples = given if given is not None and given.ndim == 1 else None
        of_parts = given if given is not None and given.ndim > 1 else None
        return x, targets[0], mean_weights(real.astype(np.float32), of_samples, of_parts)
