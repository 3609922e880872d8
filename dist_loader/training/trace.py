"""What a step that is being traced tells the parts of the model that Keras calls in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Trace(threading.local):
    """Tensors of the step that this thread traces. MirroredStrategy traces its replicas in threads that take turns.

    Attributes:
        share: for the optimizer: the weight of this process's gradients in the average over the world; None for equal
            weights.
        rows: for the trackers of a model's several outputs: how many samples a loss counts for; None for Keras's count.
        total: for the losses: gives what all ranks and slices counted together for one rank's and slice's count, loss
            by loss in the order in which Keras calls them; None where losses are not to be divided by such a count.
        parts: for these losses: how many ranks and slices the mean is taken over afterwards.
        over_world: for the metrics: whether their results are to be those of all ranks, which costs a message.
        real: for batch normalisation: which rows are not fill, bool of shape (batch,); None where all are real.
    """

    share: Any | None = None
    rows: Any | None = None
    total: Callable[[Any], Any] | None = None
    parts: int = 1
    over_world: bool = True
    real: Any | None = None


@contextmanager
def told(trace: Trace, **facts: Any) -> Iterator[None]:
    """Tell the model's parts what the step knows, for what is called inside."""
    before = {name: getattr(trace, name) for name in facts}
    for name, value in facts.items():
        setattr(trace, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(trace, name, value)
