"""The watchdog around Keras: the ranks meet, notes say where a rank is, and errors are told to the other ranks."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NoReturn

import keras
import tensorflow as tf

from dist_loader.channel import Data
from dist_loader.devices import Devices
from dist_loader.errors import ChannelError, ConfigError, DistLoaderError
from dist_loader.training.agreement import require_same
from dist_loader.training.feed import Feed
from dist_loader.watchdog import Limits, Meeting, Notes, Watch, last_words
from dist_loader.watchdog.addresses import listener, local_addresses
from dist_loader.watchdog.lines import End
from dist_loader.watchdog.place import Stage
from dist_loader.world import World

_log = logging.getLogger("dist_loader")
_TOGETHER = 0.5  # seconds in which all ranks that wait say so, before the first of them ends the others
_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)  # of the call that this one is made in


def limits_of(watchdog: float | None, first: float | None = None) -> Limits | None:
    """The limits that a user sets; None where the watchdog is off.

    Args:
        watchdog: see `init`.
        first: see `init`.

    Raises:
        ConfigError: no number of at least 1; for the watchdog, and not 0 or None; for the other, and not None.
    """
    for name, given, none in (("watchdog", watchdog, ", or 0 for none"), ("watchdog_first", first, "")):
        number = isinstance(given, int | float) and not isinstance(given, bool)
        if given is not None and not (number and (1 <= given < float("inf") or (none and given == 0))):
            raise ConfigError(f"{name} must be a number of seconds, at least 1{none}, not {given!r}")
    return Limits.of(float(watchdog), first) if watchdog else None


@contextmanager
def all_ranks_to_come(world: World, call: str, limits: Limits | None) -> Iterator[None]:
    """End this process if the others do not come to a call; who they are is not known yet."""
    if limits is None or world.size == 1:
        yield
        return
    thread, limit = threading.get_ident(), limits.first

    def alone() -> None:
        text = (
            f"rank {world.rank} on {socket.gethostname()} waited {limit:g} s in {call} for all ranks to call it; "
            "whichever rank does not say this is the one that did not"
        )
        _end_without(text, thread, speaks=True)

    timer = threading.Timer(limit, alone)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _all_that_came(devices: Devices, mine: bytes, call: str, limits: Limits | None) -> list[Data]:
    """What each rank says at a call; ends this process if one does not come."""
    try:
        return devices.channel.allgather(mine, f"Strategy.{call}", None if limits is None else limits.first)
    except ChannelError as error:
        if not error.late:
            raise
        first = next(rank for rank in range(devices.world.size) if rank not in error.ranks)
        _end_without(str(error), threading.get_ident(), speaks=devices.world.rank == first or not error.ranks)


def _end_without(text: str, thread: int, *, speaks: bool) -> NoReturn:
    """End this process, which has waited for long enough."""
    text = f"dist_loader: {text}; the job ends"
    if speaks:
        last_words.speak(text)
    last_words.leave_in_log(text, thread, blamed=False)
    time.sleep(_TOGETHER)
    last_words.go()


def compiling() -> None:
    """Note that TensorFlow compiles a step. Called by the step's Python code, which runs then, or always if eager."""
    notes = _notes.get()
    if notes is not None and not tf.executing_eagerly():
        notes.mark_compiling()


@contextmanager
def writing_a_checkpoint() -> Iterator[None]:
    """Note that this rank waits for a checkpoint to be written, if this call is watched."""
    notes = _notes.get()
    with nullcontext() if notes is None else notes.at("writing"):
        yield


class Watched:
    """A call that is watched, or one that is not, of a single rank.

    Attributes:
        notes: where this rank is; None if nobody looks.
    """

    def __init__(self, notes: Notes | None) -> None:
        self.notes = notes

    def around(self, callbacks: Sequence[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
        """Callbacks, between two that note when they begin and when they end."""
        if self.notes is None:
            return list(callbacks)
        return [_Enter(self.notes), *callbacks, _Leave(self.notes)]

    def agreeing(self) -> None:
        """Note that this rank waits for the others, outside of a step."""
        if self.notes is not None:
            self.notes.mark("agreeing")


@contextmanager
def watched(
    devices: Devices, call: str, limits: Limits | None, train: Feed | None, other: Feed | None
) -> Iterator[Watched]:
    """Watch all ranks while they are in here. Every rank calls this alike; one rank alone is not watched.

    Args:
        devices: of all ranks.
        call: what is called, the same on all ranks.
        limits: how long what may take; None: nobody looks.
        train: what is trained on.
        other: what is evaluated, or predicted for.

    Raises:
        ConfigError: the ranks call different things, or with another limit.
    """
    if devices.world.size == 1:
        yield Watched(None)
        return

    def input_of(stage: Stage, step: int) -> str | None:
        sequence = train if stage == "training" else other
        return None if sequence is None else sequence.waits_for(step)

    outer = _notes.get()
    if outer is not None:  # called by a callback of a training that is watched
        with _within(outer, input_of):
            yield Watched(outer)
        return
    notes = Notes(input_of)
    watch = _met(devices, call, limits, notes)
    if watch is None:
        yield Watched(None)
        return
    token = _notes.set(notes)
    try:
        yield Watched(notes)
    except SystemExit as error:
        watch.end(End("left", f"SystemExit: {error.code}"))
        raise
    except BaseException as error:
        watch.end(End("followed" if _follows(error) else "failed", _one_line(error)))
        raise
    else:
        watch.end(End("done"))
    finally:
        _notes.reset(token)


@contextmanager
def _within(notes: Notes, input_of: Any) -> Iterator[None]:
    before, at = notes.input, notes.place
    notes.input = input_of
    notes.mark("between")
    try:
        yield
    finally:
        notes.input = before
        notes.mark(at.doing, at.stage, at.epoch, at.step)


def _met(devices: Devices, call: str, limits: Limits | None, notes: Notes) -> Watch | None:
    """The watch of a call that all ranks have come to; None if there is to be none."""
    world = devices.world
    mine: dict[str, Any] = {"call": f"Strategy.{call}", "host": socket.gethostname()[:64]}
    mine |= {"watchdog": limits and limits.stall, "watchdog_first": limits and limits.first}
    server = None
    if world.chief and limits is not None:
        try:
            server = listener()
            mine |= {"port": server.getsockname()[1], "addresses": local_addresses(), "token": secrets.token_hex(16)}
        except OSError as error:
            _log.warning("the watchdog is off: rank 0 cannot listen: %s", error)
    try:
        rows = [json.loads(bytes(row)) for row in _all_that_came(devices, json.dumps(mine).encode(), call, limits)]
        for name in ("call", "watchdog", "watchdog_first"):
            require_same([{name: str(row[name])} for row in rows])
        if limits is None or "port" not in rows[0]:
            return None
        hosts, chief = tuple(row["host"] for row in rows), rows[0]
        meeting = Meeting(world.rank, hosts, tuple(chief["addresses"]), chief["port"], chief["token"])
        return Watch(meeting, notes, limits, server)
    except BaseException:
        if server is not None:
            server.close()
        raise


def _follows(error: BaseException) -> bool:
    """Whether an error says that communication failed, as it does on all ranks when one is gone."""
    return not isinstance(error, DistLoaderError) and "Horovod" in f"{type(error).__name__} {error}"


def _one_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("Graph execution error"):  # TensorFlow's, with the reason at the end
        lines = [line for line in reversed(lines) if not line[0].isspace()]
    return f"{type(error).__name__}: {' '.join(lines[0].split()) if lines else ''}"[:500].removesuffix(": ")


class _Enter(keras.callbacks.Callback):  # type: ignore[misc]
    """The first of the callbacks: notes that they begin."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self._mark = notes.mark

    def on_train_begin(self, logs: Any = None) -> None:
        self._mark("callbacks", "training", step=-1)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._mark("callbacks", "training", epoch, -1)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._mark("callbacks", "training", step=batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._mark("callbacks", step=batch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._mark("callbacks", "training")

    def on_train_end(self, logs: Any = None) -> None:
        self._mark("callbacks")

    def on_test_begin(self, logs: Any = None) -> None:
        self._mark("callbacks", "validation", step=-1)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._mark("callbacks", step=batch)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        self._mark("callbacks", step=batch)

    def on_test_end(self, logs: Any = None) -> None:
        self._mark("callbacks")

    def on_predict_begin(self, logs: Any = None) -> None:
        self._mark("callbacks", "prediction", step=-1)

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._mark("callbacks", step=batch)

    def on_predict_batch_end(self, batch: int, logs: Any = None) -> None:
        self._mark("callbacks", step=batch)

    def on_predict_end(self, logs: Any = None) -> None:
        self._mark("callbacks")


class _Leave(keras.callbacks.Callback):  # type: ignore[misc]
    """The last of the callbacks: notes that they have ended, and what comes next."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self._mark = notes.mark
        self._compiled: set[str] = set()

    def _step(self, kind: str) -> None:
        if kind in self._compiled:
            self._mark("step")
        else:
            self._compiled.add(kind)
            self._mark("first step")

    def _between(self, *_: Any, **__: Any) -> None:
        self._mark("between")

    on_train_begin = on_epoch_begin = on_train_batch_end = on_train_end = _between
    on_test_begin = on_test_batch_end = on_test_end = _between
    on_predict_begin = on_predict_batch_end = on_predict_end = _between

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step("training")

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step("validation")

    def on_predict_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step("prediction")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._mark("agreeing")
