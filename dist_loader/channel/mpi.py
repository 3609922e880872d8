"""The channel over MPI, by mpi4py's upper-case methods, which send bytes; the lower-case ones would load pickles.

Rank 0 collects, because a collective operation of MPI does not tell who is missing. Nothing blocks: each request is
asked for until its time is up, so that signals come through.

Beside Horovod, MPI is Horovod's: it starts it in a thread of its own, and ends it as soon as any rank ends. A call to
MPI after that aborts the process, with another exit code than its own. MPI deletes the attributes of COMM_SELF as the
first thing when it ends (MPI 4.0, 11.2.4), so an attribute of ours tells in time.
"""

from __future__ import annotations

import contextlib
import json
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dist_loader.channel.channel import SECONDS, Data, call_text, different, missing
from dist_loader.errors import ChannelError, ConfigError
from dist_loader.world import World

_TAG = 20_641  # of all messages, on the communicator of all ranks
_HEAD = struct.Struct("<4sQQ")  # kind, number of the call, bytes that follow
_PIECE = 1 << 26  # bytes in one message; MPI 3 counts them in 31 bits
_LONGEST_PAUSE = 0.005  # seconds between two looks
_HERE, _GOOD, _BAD = b"here", b"good", b"bad "
_MORE_SECONDS = 30.0  # that rank 0's answer may take beyond the time that it waits itself


class MpiChannel:
    """See `Channel`. Uses the communicator of all ranks, which is there without any of them having to come.

    Args:
        world: this process among all, as its launcher says.

    Raises:
        ConfigError: MPI says otherwise, or was started for one thread only.
        ImportError: mpi4py finds no MPI.
    """

    def __init__(self, world: World) -> None:
        from mpi4py import MPI

        self._mpi: Any = MPI
        self._all: Any = MPI.COMM_WORLD
        self.rank, self.size = world.rank, world.size
        found = (self._all.Get_rank(), self._all.Get_size())
        if found != (world.rank, world.size):
            raise ConfigError(
                f"the launcher {world.launcher} made this process rank {world.rank} of {world.size}, but MPI sees rank "
                f"{found[0]} of {found[1]}: mpi4py runs on another MPI than the launcher's ({MPI.get_vendor()[0]})"
            )
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise ConfigError("MPI was started for one thread only: leave HOROVOD_MPI_THREADS_DISABLE out")
        self._end = _End(MPI)
        self._calls = 0
        self._broken: ChannelError | None = None

    def allgather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        return _unpacked(self._meet(b"allg", data, _packed, what, seconds))

    def gather(self, data: Data, what: str, seconds: float | None = SECONDS) -> list[Data]:
        parts: list[Data] = []

        def keep(received: list[Data]) -> Data:
            parts.extend(received)
            return b""

        self._meet(b"gath", data, keep, what, seconds)
        return parts

    def broadcast(self, data: Data, what: str, seconds: float | None = SECONDS) -> Data:
        return self._meet(b"broa", b"", lambda _: data, what, seconds)

    def barrier(self, what: str, seconds: float | None = SECONDS) -> None:
        self._meet(b"barr", b"", lambda _: b"", what, seconds)

    def _meet(
        self, kind: bytes, data: Data, answer: Callable[[list[Data]], Data], what: str, seconds: float | None
    ) -> Data:
        """Bring data to rank 0, and its answer to all."""
        if self._broken is not None:
            raise self._broken
        self._calls += 1
        try:
            if self.rank == 0:
                return self._lead(kind, data, answer, what, seconds)
            return self._follow(kind, data, what, seconds)
        except ChannelError as error:
            self._broken = error
            raise

    def _lead(
        self, kind: bytes, data: Data, answer: Callable[[list[Data]], Data], what: str, seconds: float | None
    ) -> Data:
        heads = {rank: bytearray(_HEAD.size) for rank in range(1, self.size)}
        with self._alive():
            waiting = {rank: self._receive(head, rank) for rank, head in heads.items()}

        def greet() -> bool:
            for rank in [rank for rank, request in waiting.items() if request.Test()]:
                del waiting[rank]
                self._send(_head(_HERE, self._calls), rank)
            return not waiting

        here = self._until(greet, seconds)
        calls = [_call(_head(kind, self._calls)), *map(_call, heads.values())]
        error = None
        if not here:
            error = missing(sorted(waiting), what, seconds or 0.0, 0)
        elif len(set(calls)) > 1:
            error = different(calls, what)
        if error is not None:
            with self._alive():
                text = json.dumps({"text": str(error), "ranks": error.ranks, "late": error.late}).encode()
                for rank in heads.keys() - waiting.keys():
                    self._send(_head(_BAD, self._calls, len(text)), rank)
                    self._send(text, rank)
                for request in waiting.values():
                    request.Cancel()
            raise error
        parts: list[Data] = [data]
        for rank, head in heads.items():
            part = bytearray(_HEAD.unpack(head)[2])
            self._done([self._receive(piece, rank) for piece in _pieces(part)], [rank], what, seconds)
            parts.append(part)
        result = answer(parts)
        with self._alive():
            sent = [self._send(_head(_GOOD, self._calls, len(result)), rank) for rank in heads]
        self._done(sent, [], what, seconds)
        self._spread(result, what, seconds)
        return result

    def _follow(self, kind: bytes, data: Data, what: str, seconds: float | None) -> Data:
        told = bytearray(_HEAD.size)
        with self._alive():
            sent = [self._send(_head(kind, self._calls, len(data)), 0)]
            sent += [self._send(piece, 0) for piece in _pieces(data)]
            request = self._receive(told, 0)
        self._done([request], [0], what, seconds)  # rank 0 is here
        with self._alive():
            request = self._receive(told, 0)
        # It waits for the others, and then for what they send.
        self._done([request], [0], what, None if seconds is None else 2 * seconds + _MORE_SECONDS)
        verdict, _, length = _HEAD.unpack(told)
        result = bytearray(length)
        if verdict == _BAD:
            with self._alive():
                request = self._receive(result, 0)
            self._done([request], [0], what, _MORE_SECONDS)
            error = json.loads(result)
            raise ChannelError(error["text"], tuple(error["ranks"]), late=error["late"])
        self._done(sent, [0], what, seconds)
        self._spread(result, what, seconds)
        return result

    def _spread(self, data: Data, what: str, seconds: float | None) -> None:
        """Fill the data with rank 0's, everywhere; all ranks are here."""
        with self._alive():
            requests = [self._all.Ibcast([piece, self._mpi.BYTE], root=0) for piece in _pieces(data)]
        self._done(requests, [], what, seconds)

    def _send(self, data: Data, rank: int) -> Any:
        return self._all.Isend([data, self._mpi.BYTE], dest=rank, tag=_TAG)

    def _receive(self, data: Data, rank: int) -> Any:
        return self._all.Irecv([data, self._mpi.BYTE], source=rank, tag=_TAG)

    def _done(self, requests: Sequence[Any], of: Sequence[int], what: str, seconds: float | None) -> None:
        if requests and not self._until(lambda: self._mpi.Request.Testall(requests), seconds):
            raise missing(of, what, seconds or 0.0, self.rank)

    def _until(self, done: Callable[[], bool], seconds: float | None) -> bool:
        """Ask until it is done, or the time is up."""
        deadline = None if seconds is None else time.monotonic() + seconds
        pause = 0.0
        while True:
            with self._alive():
                if done():
                    return True
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE, 1.5 * pause + 2e-5)

    @contextlib.contextmanager
    def _alive(self) -> Iterator[None]:
        """MPI does not end while this is entered.

        Raises:
            RuntimeError: it has ended.
        """
        with self._end.lock:
            if self._end.begun:  # in the words by which Horovod's own failures are told from others
                raise RuntimeError("Horovod has been shut down, and MPI with it, because another rank has ended")
            yield


class _End:
    """Whether MPI has begun to end; while the lock is held, it does not."""

    def __init__(self, mpi: Any) -> None:
        self.lock = threading.RLock()
        self.begun = False
        mpi.COMM_SELF.Set_attr(mpi.Comm.Create_keyval(delete_fn=self._begin), self)

    def _begin(self, *_: Any) -> None:
        with self.lock:
            self.begun = True


def _head(kind: bytes, call: int, length: int = 0) -> bytes:
    return _HEAD.pack(kind, call, length)


def _call(head: Data) -> str:
    kind, number, _ = _HEAD.unpack(head)
    return call_text(kind, number)


def _pieces(data: Data) -> list[memoryview]:
    whole = memoryview(data)
    return [whole[at : at + _PIECE] for at in range(0, len(whole), _PIECE)]


def _packed(parts: Sequence[Data]) -> Data:
    return struct.pack(f"<Q{len(parts)}Q", len(parts), *map(len, parts)) + b"".join(parts)


def _unpacked(data: Data) -> list[Data]:
    (count,) = struct.unpack_from("<Q", data)
    at, parts = 8 + 8 * count, []
    for length in struct.unpack_from(f"<{count}Q", data, 8):
        parts.append(bytes(memoryview(data)[at : at + length]))
        at += length
    return list(parts)
