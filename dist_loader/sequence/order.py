"""Which samples an epoch consists of, and in which order, where that is not simply a permutation of all."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt


class Order(Protocol):
    """An epoch's positions, from 0, and the samples that are there: a pure function of both.

    It must not depend on how many ranks there are, so that each finds its own part of an epoch by itself.
    """

    @property
    def draws(self) -> int:
        """Positions in an epoch."""

    @property
    def exactly_once(self) -> bool:
        """Whether every sample is at one position of every epoch."""

    @property
    def fingerprint(self) -> str:
        """What the order follows from, for ranks to compare and for a resume."""

    def samples(self, epoch: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The samples at some positions, of the same shape.

        Args:
            epoch: from 0.
            positions: each from 0 to `draws - 1`, of any shape.
        """
