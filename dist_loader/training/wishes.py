"""What single ranks ask of all, agreed on without a message of its own: it travels with the gradients."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
import tensorflow as tf


class Wish(IntEnum):
    """What a rank may ask for, after the next step."""

    STOP = 0  # a callback stopped the training
    CHECKPOINT = 1
    INTERRUPT = 2  # SIGINT came
    TERMINATE = 3  # SIGTERM came


class Wishes:
    """This rank's wishes, and what all ranks together had wished for before the last step."""

    def __init__(self) -> None:
        self._mine = np.zeros(len(Wish), np.float32)
        self._sent = tf.Variable(self._mine, trainable=False, name="wishes")
        self._received = tf.Variable(self._mine, trainable=False, name="wishes_of_all")

    def in_step(self) -> Any:
        """This rank's wishes, a tensor to be summed over the ranks."""
        return self._sent.read_value()

    def agree_in_step(self, sums: Any) -> None:
        """Take note of the sums."""
        self._received.assign(sums)

    def wish(self, wish: Wish) -> None:
        """Ask for something, to be known to all after the next step."""
        if not self._mine[wish]:
            self._mine[wish] = 1.0
            self._sent.assign(self._mine)

    def mine(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """What this rank asks for, to be summed over the ranks between steps."""
        return self._mine.copy()

    def agreed(self) -> set[Wish]:
        """What any rank had asked for before the last step."""
        return granted(self._received.numpy())

    def forget(self, *wishes: Wish) -> None:
        """Withdraw what was granted; without arguments everything, as a training begins."""
        self._mine[list(wishes or Wish)] = 0.0
        self._sent.assign(self._mine)
        self._received.assign(np.zeros(len(Wish), np.float32))


def granted(sums: Any) -> set[Wish]:
    """The wishes that any rank has, of their sums over the ranks."""
    return {wish for wish in Wish if sums[wish] > 0}
