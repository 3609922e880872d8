"""The part of every other rank: it says where it is, and hears when the job is over, from rank 0 or by its silence."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace

from dist_loader.watchdog.lines import LONGEST, State, encoded, next_line, number_in, state_in, state_line, text_in
from dist_loader.watchdog.own import Meeting, Own
from dist_loader.watchdog.seen import Seen
from dist_loader.watchdog.verdict import DIED, Verdict, silence
from dist_loader.watchdog.words import place_of

_log = logging.getLogger("dist_loader")

_ANSWER_SECONDS = 3.0
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def follow(own: Own, finish: Callable[[Verdict, bool], None]) -> Verdict | None:
    """Tell rank 0 where this rank is, until all have ended or have to.

    Args:
        own: this rank.
        finish: leaves a verdict in the log, and says it if so told.

    Returns:
        What ended the job; None if all ended by themselves, or if rank 0 cannot be reached.
    """
    own.begin()
    connection = await _connected(own)
    if connection is None:
        if own.end is None:
            meeting = own.meeting
            where = f"port {meeting.port} of {', '.join(meeting.addresses)}"
            _log.warning("rank %d cannot reach the watchdog of rank 0 at %s: a firewall?", meeting.rank, where)
        return None
    return await _Follow(own, finish).run(*connection)


async def _connected(own: Own) -> Connection | None:
    """A connection over the first address that answers; None if none does in time, or the training is over before."""
    tries = {asyncio.ensure_future(_greeted(own.meeting, address)) for address in candidates(own.meeting)}
    found, started = None, time.monotonic()
    while tries and found is None and time.monotonic() - started < own.limits.meet:
        if own.end is not None and time.monotonic() - own.ended > 1.0:
            break
        done, tries = await asyncio.wait(tries, timeout=0.1, return_when=asyncio.FIRST_COMPLETED)
        for connection in [attempt.result() for attempt in done]:
            if found is None:
                found = connection
            elif connection is not None:
                connection[1].close()
    for attempt in tries:
        attempt.cancel()
    for late in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(late, tuple):
            late[1].close()
    return found


def candidates(meeting: Meeting) -> list[str]:
    """The addresses at which rank 0 may answer."""
    local = ["127.0.0.1"] if meeting.hosts[meeting.rank] == meeting.hosts[0] else []
    return [*local, *meeting.addresses]


async def _greeted(meeting: Meeting, address: str) -> Connection | None:
    """A connection to an address, if it is rank 0 that answers there."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection(address, meeting.port, limit=LONGEST)
        writer.write(encoded("hello", rank=meeting.rank, token=meeting.token))
        line = await next_line(reader)
    except OSError:
        line = None
    except asyncio.CancelledError:
        if writer is not None:
            writer.close()
        raise
    if line is not None and line.get("kind") == "welcome" and number_in(line, "rank") == meeting.rank:
        return reader, writer  # type: ignore[return-value]  # there is one
    if writer is not None:
        writer.close()
    return None


class _Follow:
    def __init__(self, own: Own, finish: Callable[[Verdict, bool], None]) -> None:
        self._own = own
        self._finish = finish
        self._heard = time.monotonic()
        self._chief = Seen(0, own.meeting.hosts[0])
        self._table = ""
        self._verdict: Verdict | None = None
        self._patience = 0.0
        self._over = False
        self._closed = False

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Verdict | None:
        hearing = asyncio.ensure_future(self._hear(reader))
        try:
            verdict = await self._watch(writer)
            if verdict is not None:
                await self._end(verdict, writer)
        except Exception:  # a fault of the watchdog: this rank is not to be taken for dead
            _send(writer, encoded("end", how="left", reason="its watchdog failed"))
            raise
        else:
            return verdict
        finally:
            hearing.cancel()
            with suppress(asyncio.CancelledError):
                await hearing
            writer.close()
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1.0)

    async def _hear(self, reader: asyncio.StreamReader) -> None:
        while (line := await next_line(reader)) is not None:
            self._heard = time.monotonic()
            kind = line.get("kind")
            if kind == "pulse":
                said = line.get("state")
                self._chief = replace(self._chief, state=state_in(said) if isinstance(said, dict) else State())
                self._table = text_in(line, "table", LONGEST)
            elif kind == "verdict":
                named = line.get("blamed")
                blamed = tuple(rank for rank in named if isinstance(rank, int)) if isinstance(named, list) else ()
                self._patience = min(5.0, number_in(line, "patience"))
                self._verdict = Verdict(blamed, text_in(line, "line"), text_in(line, "table", LONGEST))
                self._own.change()
            elif kind == "end":
                self._over = True
                self._own.change()
        self._closed = True
        self._own.change()

    async def _watch(self, writer: asyncio.StreamWriter) -> Verdict | None:
        own, told = self._own, False
        _send(writer, state_line(own.state()))
        while True:
            gap = await own.beat()
            self._heard += gap
            if self._verdict is not None or self._over:
                return self._verdict
            if self._closed:
                return self._of_chief("died, last heard", DIED)
            silent = time.monotonic() - self._heard
            if silent > own.limits.lost:
                verdict = self._of_chief("does not answer, last heard", silence(silent))
                _send(writer, encoded("verdict", line=verdict.line, table=verdict.table))
                return verdict
            _send(writer, state_line(own.state()))
            if own.end is not None and not told:
                told = True
                _send(writer, encoded("end", **asdict(own.end)))

    def _of_chief(self, what: str, why: str) -> Verdict:
        rank = self._chief
        return Verdict((0,), f"rank 0 on {rank.host} {what} {place_of(rank)}: {why}", self._table)

    async def _end(self, verdict: Verdict, writer: asyncio.StreamWriter) -> None:
        meeting = self._own.meeting
        self._finish(verdict, self._verdict is None and meeting.rank == meeting.deputy)
        _send(writer, encoded("ready"))
        if self._verdict is None or (self._own.end is not None and self._own.end.how == "failed"):
            return
        until = time.monotonic() + _ANSWER_SECONDS
        while not self._closed and time.monotonic() < until:  # until rank 0 goes, too
            await self._own.beat(0.1)
        await asyncio.sleep(self._patience if 0 in verdict.blamed else 0.0)


def _send(writer: asyncio.StreamWriter, line: bytes) -> None:
    if not writer.is_closing():
        writer.write(line)
