"""Rank 0's part: it hears all ranks, decides, and says so."""

from __future__ import annotations

import asyncio
import hmac
import logging
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from dist_loader.watchdog.lines import LONGEST, End, State, encoded, end_in, next_line, number_in, state_in, text_in
from dist_loader.watchdog.own import Own
from dist_loader.watchdog.seen import Seen
from dist_loader.watchdog.verdict import Verdict, decide
from dist_loader.watchdog.words import ranks_text, table

_log = logging.getLogger("dist_loader")

_HELLO_SECONDS = 5.0
_ANSWER_SECONDS = 3.0
_LATE_SECONDS = 2.0
OWN_WORDS_SECONDS = 1.0  # for a rank that failed by an error of its own to say it


@dataclass
class _Peer:
    writer: asyncio.StreamWriter
    heard: float
    state: State
    closed: float | None = None
    end: End | None = None
    ended: float = 0.0
    ready: bool = False

    def seen(self, rank: int, host: str, now: float) -> Seen:
        silent = now - self.heard
        return Seen(
            rank,
            host,
            replace(self.state, seconds=self.state.seconds + silent),
            silent,
            None if self.closed is None else now - self.closed,
            self.end,
            now - self.ended,
        )


async def lead(own: Own, listener: socket.socket, finish: Callable[[Verdict, bool], None]) -> Verdict | None:
    """Watch all ranks until they have ended or have to.

    Args:
        own: rank 0.
        listener: where the others connect.
        finish: leaves a verdict in the log, and says it if so told.

    Returns:
        What ended the job; None if all ended by themselves.
    """
    return await _Lead(own, finish).run(listener)


class _Lead:
    def __init__(self, own: Own, finish: Callable[[Verdict, bool], None]) -> None:
        self._own = own
        self._finish = finish
        self._peers: dict[int, _Peer] = {}
        self._told: Verdict | None = None  # by a rank that gave up this one
        self._started = time.monotonic()
        self._given_up = False
        self._level, self._level_since = (0, 0), self._started

    async def run(self, listener: socket.socket) -> Verdict | None:
        self._own.begin()
        server = await asyncio.start_server(self._serve, sock=listener, limit=LONGEST)
        try:
            verdict = await self._watch()
            if verdict is None:
                self._say(encoded("end"))
            else:
                await self._end(verdict)
        except Exception:  # a fault of the watchdog: nobody watches, and nobody is taken for dead
            self._say(encoded("end"))
            raise
        else:
            return verdict
        finally:
            server.close()
            for peer in self._peers.values():
                peer.writer.close()
            for peer in self._peers.values():
                with suppress(OSError, asyncio.TimeoutError):
                    await asyncio.wait_for(peer.writer.wait_closed(), 1.0)

    async def _watch(self) -> Verdict | None:
        own, said = self._own, 0.0
        while True:
            gap = await own.beat(0.1 if self._hurries() else None)
            for peer in self._peers.values() if gap else ():
                peer.heard += gap
            if self._told is not None:
                return self._told
            seen = self._seen()
            if (verdict := decide(seen, own.limits, self._still(seen, gap))) is not None:
                return verdict
            if all(rank.end is not None for rank in seen if rank.reached) and not self._awaited():
                return None
            if time.monotonic() - said >= own.between_beats:
                said = time.monotonic()
                self._pulse(seen)
            if not self._given_up and time.monotonic() - self._started > own.limits.meet:
                self._give_up()

    def _still(self, seen: Sequence[Seen], gap: float) -> float:
        """Seconds since the rank furthest behind was another one, or at another place."""
        counts = [rank.state.count for rank in seen if rank.reached and rank.end is None]
        level, now = (min(counts, default=0), len(counts)), time.monotonic()
        if level != self._level:
            self._level, self._level_since = level, now
        self._level_since = min(now, self._level_since + gap)
        return now - self._level_since

    def _hurries(self) -> bool:
        ends = [peer.end is not None or peer.closed is not None for peer in self._peers.values()]
        return self._own.end is not None or any(ends)

    def _seen(self) -> list[Seen]:
        own, now, hosts = self._own, time.monotonic(), self._own.meeting.hosts
        me = Seen(0, hosts[0], own.state(), end=own.end, ended=now - own.ended)
        return [
            me,
            *(
                self._peers[rank].seen(rank, host, now) if rank in self._peers else Seen(rank, host, reached=False)
                for rank, host in enumerate(hosts)
                if rank
            ),
        ]

    def _missing(self) -> list[int]:
        return [rank for rank in range(1, len(self._own.meeting.hosts)) if rank not in self._peers]

    def _awaited(self) -> bool:
        """Whether a rank may still come, though rank 0 has ended."""
        return bool(self._missing()) and not self._given_up and time.monotonic() - self._own.ended < _LATE_SECONDS

    def _give_up(self) -> None:
        self._given_up = True
        if missing := self._missing():
            meeting = self._own.meeting
            _log.warning(
                "the watchdog of rank 0 was not reached by %s within %g s, at port %d of %s: a firewall? It is off for "
                "them",
                ranks_text(missing),
                self._own.limits.meet,
                meeting.port,
                ", ".join(meeting.addresses),
            )

    def _pulse(self, seen: list[Seen]) -> None:
        state = asdict(seen[0].state)
        self._say(encoded("pulse", state=state), but=self._own.meeting.deputy)
        if (deputy := self._peers.get(self._own.meeting.deputy)) is not None:
            _send(deputy, encoded("pulse", state=state, table=table(seen, self._own.limits.silent)))

    def _say(self, line: bytes, but: int | None = None) -> None:
        for rank, peer in self._peers.items():
            if rank != but:
                _send(peer, line)

    async def _end(self, verdict: Verdict) -> None:
        """Say a verdict, tell all ranks, and wait until those that can have left their stacks."""
        seen = self._seen()
        said_by_itself = any(rank.rank in verdict.blamed and rank.end is not None for rank in seen)
        self._finish(verdict, self._told is None)
        patience = OWN_WORDS_SECONDS if said_by_itself else 0.0
        self._say(encoded("verdict", blamed=verdict.blamed, line=verdict.line, table=verdict.table, patience=patience))
        until = time.monotonic() + _ANSWER_SECONDS
        silent = {rank.rank for rank in seen if rank.silent > self._own.limits.lost}
        while time.monotonic() < until and any(
            peer.closed is None and not peer.ready for rank, peer in self._peers.items() if rank not in silent
        ):
            await self._own.beat(0.1)
        if said_by_itself and self._own.end is None:
            await asyncio.sleep(patience)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rank = None
        with suppress(asyncio.TimeoutError):
            rank = await asyncio.wait_for(self._greeted(reader, writer), _HELLO_SECONDS)
        if rank is None:
            writer.close()
            return
        peer: _Peer | None = None
        while (line := await next_line(reader)) is not None:
            now, kind = time.monotonic(), line.get("kind")
            if kind == "state":
                if peer is None:  # a rank that reached several addresses goes on with one of them
                    peer = self._peers[rank] = _Peer(writer, now, state_in(line))
                peer.heard, peer.state = now, state_in(line)
            elif kind == "end" and peer is not None:
                peer.heard, peer.ended, peer.end = now, now, end_in(line)
                self._own.change()
            elif kind == "ready" and peer is not None:
                peer.ready = True
                self._own.change()
            elif kind == "verdict" and peer is not None:
                self._told = Verdict((0,), text_in(line, "line"), text_in(line, "table", LONGEST))
                self._own.change()
        if peer is not None:
            peer.closed = time.monotonic()
            self._own.change()
        writer.close()

    async def _greeted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int | None:
        """The number of the rank that connected; None for a stranger."""
        meeting = self._own.meeting
        line = await next_line(reader) or {}
        rank, token = int(number_in(line, "rank")), text_in(line, "token")
        if not hmac.compare_digest(token.encode(), meeting.token.encode()) or not 0 < rank < len(meeting.hosts):
            return None
        writer.write(encoded("welcome", rank=rank))
        return rank


def _send(peer: _Peer, line: bytes) -> None:
    if peer.closed is None and not peer.writer.is_closing():
        peer.writer.write(line)
