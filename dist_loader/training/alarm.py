"""How the ranks hear, within a step, that one of them ran out of memory.

The news travels with the gradients, as a flag that is up in no computed step: who ran out never comes to send its
gradients, and sends zeros and the flag instead. The others then leave out the update, and all ranks know that they do
the step again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from dist_loader.devices import Devices
from dist_loader.training.wishes import Wish, Wishes

_NOTHING, _COUNTS, _GRADIENTS = range(3)


@dataclass
class Messages:
    """What a rank sends in a step: types and shapes, for a rank that has to send something in their place."""

    counts: list[tf.TensorSpec]
    gradients: list[tf.TensorSpec | None]
    weighted: bool


class Alarm:
    """The flag of a prepared model, and how far this rank's step has come."""

    def __init__(self) -> None:
        self._raised = tf.Variable([0.0, 0.0], trainable=False, name="out_of_memory")  # how many, sum of rank + 1
        self._sent = tf.Variable(_NOTHING, trainable=False, dtype=tf.int32, name="messages_sent")
        self._messages = Messages([], [], weighted=False)

    def begin(self) -> None:
        """Before a step: nothing is sent."""
        self._sent.assign(_NOTHING)

    def raised(self) -> tuple[int, int | None]:
        """After a step: how many ranks ran out of memory in it, and which, if it was one."""
        number, who = (int(value) for value in self._raised.numpy())
        return number, who - 1 if number == 1 else None

    def counts_sent(self, totals: Sequence[Any]) -> list[Any]:
        """Inside of a step: the totals of what the losses count, noted as sent before they are used."""
        self._messages.counts = [tf.TensorSpec(total.shape, total.dtype) for total in totals]
        with tf.control_dependencies([*totals]), tf.control_dependencies([self._sent.assign(_COUNTS)]):
            return [tf.identity(total) for total in totals]

    def after_gradients(self) -> list[Any]:
        """Inside of a step: what is there only after the gradients were sent."""
        return [self._sent.read_value()]

    def apply_unless_raised(
        self,
        devices: Devices,
        gradients: Sequence[Any],
        share: Any | None,
        wishes: Wishes,
        apply: Callable[[list[Any]], Any],
    ) -> None:
        """Inside of a step: average the gradients over the ranks and apply them, unless a rank ran out of memory.

        No gradient is sent before all are there, so that a rank has sent all of them or none.
        """
        dense = [None if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]
        self._messages.gradients = [
            None if gradient is None else tf.TensorSpec(gradient.shape, gradient.dtype) for gradient in dense
        ]
        self._messages.weighted = share is not None
        with tf.control_dependencies([gradient for gradient in dense if gradient is not None]):
            together = [None if gradient is None else tf.identity(gradient) for gradient in dense]
            riders = [wishes.in_step(), tf.constant(0.0), tf.constant(0.0)]
        means, (sums, number, who) = devices.mean_gradients(together, share, riders)
        with tf.control_dependencies([sums, *(mean for mean in means if mean is not None)]):
            sent = self._sent.assign(_GRADIENTS)
        with tf.control_dependencies([sent]):
            wishes.agree_in_step(sums)
            self._raised.assign([number, who])
            means = [None if mean is None else tf.identity(mean) for mean in means]

        def applied() -> Any:
            apply(means)
            return tf.constant(True)

        tf.cond(number > 0, lambda: tf.constant(False), applied)

    def too_late(self) -> bool:
        """After a step that failed: whether the other ranks have this rank's gradients and went on with them."""
        return bool(self._sent.numpy() == _GRADIENTS)

    def raise_in_place_of_step(self, devices: Devices, states: Sequence[Any]) -> None:
        """After a step that failed: send what the other ranks wait for, with the flag up.

        Args:
            devices: all ranks' devices.
            states: metrics' variables, whose sums the step sends last.
        """
        counts = self._messages.counts if self._sent.numpy() == _NOTHING else []

        def send() -> Any:
            # Not a constant: TensorFlow would compute messages of constants before the graph runs, under other names.
            zero = 0.0 * self._raised.read_value()[0]

            def zeros(tensor: Any) -> Any:
                return tf.fill(tensor.shape, tf.cast(zero, tensor.dtype))

            totals = devices.sum_in_step([zeros(spec) for spec in counts], name="counts")
            gradients = [None if spec is None else zeros(spec) for spec in self._messages.gradients]
            riders = [tf.fill([len(Wish)], zero), zero + 1.0, zero + devices.world.rank + 1.0]
            means, (_, number, who) = devices.mean_gradients(
                gradients, zero if self._messages.weighted else None, riders
            )
            self._raised.assign([number, who])
            sums = devices.sum_in_step([zeros(state.value) for state in states], name="metrics")
            return totals, means, sums  # or TensorFlow would leave out what nobody uses

        tf.function(send, autograph=False)()
