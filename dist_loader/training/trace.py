"""What a step that is being traced tells the parts of the model that Keras calls in between."""

from __future__ import annotations

import threading
from typing import Any


class Trace(threading.local):
    """Tensors of the step that this thread traces. MirroredStrategy traces its replicas in threads that take turns.

    Attributes:
        share: for the optimizer: the weight of this process's gradients in the average over the world; None for equal
            weights.
        rows: for the trackers of a model's several outputs: how many samples a loss counts for; None for Keras's count.
        count_globally: for the losses: whether to divide by the counts of all ranks together.
    """

    share: Any | None = None
    rows: Any | None = None
    count_globally: bool = False
