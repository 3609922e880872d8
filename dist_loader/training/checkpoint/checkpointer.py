"""When a training is written down, and how it leaves when it is asked to."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from dist_loader.devices import Devices
from dist_loader.keras_calls import start_epoch_at
from dist_loader.training.checkpoint import snapshot
from dist_loader.training.checkpoint.callback_states import CallbackStates
from dist_loader.training.checkpoint.folder import Monitor
from dist_loader.training.checkpoint.position import Every, Position
from dist_loader.training.checkpoint.resume import Resumed, loader_state, put_back_metrics
from dist_loader.training.checkpoint.writer import Writer
from dist_loader.training.feed import Feed
from dist_loader.training.progress import Say
from dist_loader.training.signals import Interrupted, Signals
from dist_loader.training.wishes import Wish, Wishes, granted

_SIGNALS = {Wish.TERMINATE: signal.SIGTERM, Wish.INTERRUPT: signal.SIGINT}
_ASKED_EVERY = 10  # steps of a validation, in which no gradients carry wishes; fewer if they are slow
_ASKED_AFTER = 1.0  # second

_log = logging.getLogger("dist_loader")


@dataclass
class _Tested:
    """How far a validation has come.

    Attributes:
        steps: done.
        ask_at: after so many, the ranks tell each other what they wish.
        asked_at: after so many they last did, or began.
        asked: when that was, in seconds of `time.monotonic`.
    """

    steps: int = 0
    ask_at: int = 1
    asked_at: int = 0
    asked: float = field(default_factory=time.monotonic)


class Checkpointer(keras.callbacks.Callback):  # type: ignore[misc]
    """Takes checkpoints, puts back what a resumed training remembers, and ends it after a signal.

    Every rank has one, since what differs between ranks is gathered; rank 0's has the writer. It must be the last of
    the callbacks.

    Args:
        devices: all ranks' devices.
        train: what the model is trained on.
        wishes: what single ranks ask of all.
        signals: asked after every step.
        resumed: where the training goes on.
        weights: those it goes on with, and the optimizer's, as `snapshot.shared_values` copied them; none if it begins.
        every: how often to take a checkpoint; None: never.
        writer: rank 0's.
        callbacks: whose states belong to a checkpoint.
        monitor: the figure that tells which is the best; None: the loss of the validation, or else of the training.
        say: gets a line for people.
    """

    def __init__(
        self,
        devices: Devices,
        train: Feed,
        wishes: Wishes,
        signals: Signals,
        resumed: Resumed,
        weights: dict[str, npt.NDArray[Any]],
        every: Every | None,
        writer: Writer | None,
        callbacks: Sequence[keras.callbacks.Callback],
        monitor: str | None,
        say: Say,
    ) -> None:
        super().__init__()
        self._devices = devices
        self._alone = devices.world.size == 1
        self._train = train
        self._wishes = wishes
        self._signals = signals
        self._resumed = resumed
        self._weights = weights
        self._every = every
        self._writer = writer
        self._callbacks = callbacks
        self._monitor = monitor
        self._say = say
        self._states: CallbackStates | None = None
        self._position = resumed.position
        self._saved = resumed.position
        self._saved_at = time.monotonic()
        self._trained_metrics: dict[str, Any] | None = None
        self._tested = _Tested()

    # --- the training begins, or goes on ---------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        self._states = CallbackStates(self._callbacks)
        self._put_back()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        goes_on = self._resumed.position.epoch == epoch and self._resumed.position.step > 0
        self._position = Position(epoch, self._resumed.position.step if goes_on else 0)
        if goes_on:
            self._put_back()
            put_back_metrics(self.model, self._train, self._devices, self._resumed)
            start_epoch_at(self._resumed.position.step)
        self._weights = {}

    def _put_back(self) -> None:
        """Undo what the other callbacks have just done, for they did it when this training, or this epoch, began.

        A `LearningRateScheduler` that lowers the rate by a tenth in every epoch would do so twice in one that goes on.
        """
        if self._resumed.state is None:
            return
        assert self._states is not None
        snapshot.put_back_shared(self.model, self._weights)
        snapshot.put_back_own(self.model, self._resumed.state, self._resumed.arrays, self._devices)
        self._states.put_back(self._resumed.state["callbacks"], self._resumed.arrays)

    # --- and is written down ---------------------------------------------------------------------------------------

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, epoch = self._position, self._position.epoch
        self._position = Position(epoch, min(batch + 1, self._train.steps_in(epoch) or batch + 1))
        self._note_requests()
        wishes = granted(self._wishes.mine()) if self._alone else self._wishes.agreed()
        self._leave_if_asked(wishes)
        every = self._every.steps if self._every is not None else None
        by_steps = every is not None and self._position.step // every > before.step // every
        if by_steps or Wish.CHECKPOINT in wishes:
            self._save()

    def on_test_begin(self, logs: Any = None) -> None:
        if self._every is not None:
            self._trained_metrics = snapshot.values(snapshot.Variables.of(self.model).metrics, "metrics")
        self._tested = _Tested()

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        tested = self._tested
        tested.steps += 1
        if self._alone:
            self._leave_if_asked(self._agreed_now())
        elif tested.steps >= tested.ask_at:
            now = time.monotonic()
            wishes, ((seconds,),) = self._agreed_with(np.array([now - tested.asked]))
            each = seconds / self._devices.world.size / (tested.steps - tested.asked_at)  # the same on all ranks
            tested.asked, tested.asked_at = now, tested.steps
            tested.ask_at += max(1, min(_ASKED_EVERY, int(_ASKED_AFTER / max(each, 1e-9))))
            self._leave_if_asked(wishes)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._trained_metrics = None
        if self._position.step == self._train.steps_in(epoch):  # not when a callback stopped the training within it
            self._position = Position(epoch + 1)
        self._save(logs)
        self._leave_if_asked(self._agreed_now())

    def on_train_end(self, logs: Any = None) -> None:
        if self._writer is not None:
            self._writer.finish()

    def _note_requests(self) -> None:
        """Let the other ranks know what was asked of this one."""
        if self._writer is not None:
            self._writer.raise_failure()
            seconds = self._every.seconds if self._every is not None else None
            if seconds is not None and time.monotonic() >= self._saved_at + seconds and not self._writer.busy:
                self._wishes.wish(Wish.CHECKPOINT)
        if self._signals.received is not None:
            self._wishes.wish(next(wish for wish, signum in _SIGNALS.items() if signum == self._signals.received))

    def _agreed_now(self) -> set[Wish]:
        """What any rank wishes, asked outside of a step."""
        return self._agreed_with()[0]

    def _agreed_with(self, *more: npt.NDArray[Any]) -> tuple[set[Wish], Sequence[npt.NDArray[Any]]]:
        """The same, and the sums over the ranks of what goes in the same message."""
        self._note_requests()
        wishes, *sums = self._devices.sum_arrays([self._wishes.mine(), *more])
        return granted(wishes), sums

    def _save(self, logs: Any = None) -> None:
        if self._every is None:
            return
        assert self._states is not None
        taken = snapshot.take(self.model, self._devices, self._trained_metrics)
        self._wishes.forget(Wish.CHECKPOINT)
        if taken is not None and self._writer is not None:
            state, arrays = taken
            callbacks, callbacks_arrays = self._states.get()
            state |= {"loader": loader_state(self._train), "callbacks": callbacks, "finished": self._stopped_early()}
            self._writer.submit(self._position, state, arrays | callbacks_arrays, self._monitored(logs))
        self._saved, self._saved_at = self._position, time.monotonic()

    def _stopped_early(self) -> bool:
        """Whether Keras's early stopping has ended the training, so that there is nothing to go on with."""
        stops = (callback for callback in self._callbacks if isinstance(callback, keras.callbacks.EarlyStopping))
        return any(callback.stopped_epoch > 0 for callback in stops)

    def _monitored(self, logs: Any) -> tuple[Monitor, float] | None:
        if not logs:
            return None
        name = self._monitor or ("val_loss" if "val_loss" in logs else "loss")
        largest = _largest_is_best(self.model, name)
        if name not in logs or largest is None:
            _log.warning("checkpoint_best %r is none of the figures that can be compared: %s", name, ", ".join(logs))
            return None
        return Monitor(name, largest), float(logs[name])

    # --- and left --------------------------------------------------------------------------------------------------

    def _leave_if_asked(self, wishes: set[Wish]) -> None:
        """End the training if any rank got a signal, once rank 0 has written the last checkpoint.

        Raises:
            Interrupted: on every rank.
        """
        wish = next((wish for wish in _SIGNALS if wish in wishes), None)
        if wish is None:
            return
        if self._saved != self._position:
            self._save()
        if self._writer is not None:
            self._writer.finish()
        self._devices.sum_arrays([np.zeros(1)])  # a launcher ends all ranks as soon as one has ended
        goes_on = "" if self._every is None else "; the same command goes on from there"
        message = f"ended by {_SIGNALS[wish].name} at {self._position}{goes_on}"
        self._say(message)
        raise Interrupted(_SIGNALS[wish], message)


def _largest_is_best(model: Any, name: str) -> bool | None:
    """Whether more of a figure is better, as Keras's own callbacks find it out; None if they cannot."""
    asked = keras.callbacks.EarlyStopping(name)
    asked.set_model(model)
    try:
        asked._set_monitor_op()
    except ValueError:
        return None
    return bool(asked.monitor_op is keras.ops.greater)
