"""One rank's part in the watchdog of one call: a thread, from the call's begin to its end."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time

from dist_loader.watchdog import last_words
from dist_loader.watchdog.follow import follow
from dist_loader.watchdog.lead import lead
from dist_loader.watchdog.lines import End
from dist_loader.watchdog.look import Look
from dist_loader.watchdog.own import Meeting, Own
from dist_loader.watchdog.place import Notes
from dist_loader.watchdog.stack_timer import StackTimer
from dist_loader.watchdog.verdict import Limits, Verdict

_log = logging.getLogger("dist_loader")


class Watch:
    """Watches a call from now on, until `end`. Made by the thread that trains.

    If the job has to end, this process does, with exit code 75, whatever it is doing; but one whose training
    ended by its own error is left to raise it.

    Args:
        meeting: of all ranks; at least two.
        notes: where this rank is.
        limits: how long what may take.
        listener: of rank 0, where the others connect.
    """

    def __init__(self, meeting: Meeting, notes: Notes, limits: Limits, listener: socket.socket | None = None) -> None:
        self.notes = notes
        self._own = Own(meeting, limits, Look(notes), StackTimer(threading.get_native_id()))
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="dist_loader-watchdog", daemon=True)
        self._thread.start()

    def end(self, end: End) -> None:
        """Tell how this rank's training ended, and wait until all ranks' trainings have, or until the job ends."""
        self._own.set_end(end)
        self._thread.join()

    def _run(self) -> None:
        verdict = None
        try:
            if self._listener is None:
                verdict = asyncio.run(follow(self._own, self._finish))
            else:
                verdict = asyncio.run(lead(self._own, self._listener, self._finish))
        except Exception:  # noqa: BLE001 (a fault of the watchdog must not end a training)
            _log.exception("the watchdog of rank %d failed; the training goes on without it", self._own.meeting.rank)
        finally:
            self._own.stacks.end()
            if self._listener is not None:
                self._listener.close()
        if verdict is None:
            return
        if self._own.end is None or self._own.end.how not in ("failed", "left"):
            last_words.go()
        threading.Thread(target=self._see_it_end, name="dist_loader-watchdog-end", daemon=True).start()

    def _finish(self, verdict: Verdict, speaks: bool) -> None:
        """Leave a verdict and the stacks in the log; say it if that is this rank's part."""
        rank = self._own.meeting.rank
        text = f"dist_loader: {verdict.line}; the job ends\n{verdict.table}".rstrip()
        if speaks:
            last_words.speak(text)
        thread = self.notes.thread if self._own.end is None else None
        last_words.leave_in_log(text, thread, blamed=rank in verdict.blamed or not verdict.blamed)

    def _see_it_end(self) -> None:
        """The other ranks are gone: a process that does not come to its end by itself is ended."""
        time.sleep(self._own.limits.lost)
        rank, seconds = self._own.meeting.rank, self._own.limits.lost
        text = f"dist_loader: rank {rank} did not end within {seconds:g} s after the job's end"
        last_words.leave_in_log(text, self.notes.thread, blamed=True)
        last_words.go()
