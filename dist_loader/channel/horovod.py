"""The channel over Horovod, whatever it runs on; its messages are tensors of bytes."""

from __future__ import annotations

import struct
import threading
from typing import Any

import numpy as np

from dist_loader.channel.channel import SECONDS, Data, call_text, different, missing
from dist_loader.channel.rendezvous import Arrivals
from dist_loader.errors import ChannelError

_HEAD = struct.Struct("<4sQQ")  # kind, number of the call, bytes
_FIRST = 1024  # bytes of a call's first message: the head, and the data if they fit
_PIECE = 1 << 24  # bytes that a rank sends in one further message; every rank gets those of all ranks
_UNTIL_NOTED = 0.5  # seconds of waiting, until it is written down who is here


def started() -> None:
    """Join the other ranks, if that has not been done."""
    import horovod.tensorflow as hvd

    hvd.init()


def runs_on_mpi() -> bool:
    """Whether Horovod's own messages go over MPI."""
    import horovod.tensorflow as hvd

    return bool(hvd.mpi_enabled())


class HorovodChannel:
    """See `Channel`. Horovod has been started.

    Horovod does not tell who is missing. Under horovodrun with Gloo, ranks that wait write that down with the server at
    which horovodrun has its ranks meet, so that they can be told from those that do not.

    Args:
        rank: of this process.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._arrivals = Arrivals.of_environment(rank)
        self._calls = 0
        self._broken: ChannelError | None = None

    def allgather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        return self._meet(b"allg", data, what, seconds)

    def gather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        return self._meet(b"gath", data, what, seconds, keep=self.rank == 0)

    def broadcast(self, data: Data, what: str, seconds: float | None = SECONDS) -> Data:
        return self._meet(b"broa", data if self.rank == 0 else b"", what, seconds)[0]

    def barrier(self, what: str, seconds: float | None = SECONDS) -> None:
        self._meet(b"barr", b"", what, seconds)

    def _meet(self, kind: bytes, data: Data, what: str, seconds: float | None, keep: bool = True) -> list[Data]:
        """The data of all ranks; none if they are not kept."""
        if self._broken is not None:
            raise self._broken
        self._calls += 1
        try:
            return self._met(kind, data, what, seconds, keep)
        except ChannelError as error:
            self._broken = error
            raise

    def _met(self, kind: bytes, data: Data, what: str, seconds: float | None, keep: bool) -> list[Data]:
        room = _FIRST - _HEAD.size
        first = _HEAD.pack(kind, self._calls, len(data)) + bytes(data if len(data) <= room else b"")
        rows = self._gathered(np.frombuffer(first.ljust(_FIRST, b"\0"), np.uint8)[None], what, seconds)
        heads = [_HEAD.unpack(row[: _HEAD.size].tobytes()) for row in rows]
        calls = [call_text(kind, number) for kind, number, _ in heads]
        if len(set(calls)) > 1:
            raise different(calls, what)
        lengths = [length if length > room else 0 for _, _, length in heads]
        long = [bytearray() for _ in heads]
        for at in range(0, max(lengths), _PIECE):
            mine = np.frombuffer(data, np.uint8)[at : at + _PIECE] if len(data) > room else np.empty(0, np.uint8)
            pieces = self._gathered(mine, what, seconds)
            sizes = [min(_PIECE, max(0, length - at)) for length in lengths]
            if keep:
                for part, piece in zip(long, np.split(pieces, np.cumsum(sizes)[:-1]), strict=True):
                    part.extend(piece.tobytes())
        if not keep:
            return []
        return [
            part if length > room else row[_HEAD.size : _HEAD.size + length].tobytes()
            for part, row, (_, _, length) in zip(long, rows, heads, strict=True)
        ]

    def _gathered(self, array: Any, what: str, seconds: float | None) -> Any:
        """The rows of all ranks' arrays."""
        if seconds is None:
            return _allgather(array)
        done: list[Any] = []
        thread = threading.Thread(target=lambda: done.append(_caught(array)), name="dist_loader-channel", daemon=True)
        thread.start()
        thread.join(min(seconds, _UNTIL_NOTED))
        if thread.is_alive() and self._arrivals is not None:
            self._arrivals.note(self._calls)
        thread.join(max(0.0, seconds - _UNTIL_NOTED))
        if thread.is_alive():
            absent = [] if self._arrivals is None else self._arrivals.absent(self._calls, self.size)
            raise missing(absent, what, seconds, self.rank)
        if isinstance(done[0], BaseException):
            raise done[0]
        return done[0]


def _caught(array: Any) -> Any:
    try:
        return _allgather(array)
    except BaseException as error:  # noqa: BLE001 (for the one who waits for it)
        return error


def _allgather(array: Any) -> Any:
    import horovod.tensorflow as hvd
    import tensorflow as tf

    with tf.device("CPU:0"):
        return np.asarray(hvd.allgather(tf.constant(array), name="HorovodAllgather_channel"))
