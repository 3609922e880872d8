"""A watchdog beside the training: every wait of every rank is bounded, and the one that is waited for has a name.

Each rank has one thread and one TCP connection to rank 0, beside MPI, Gloo and NCCL: none of them may be used from a
second thread, and what hangs in them could not tell. Every second a rank says where it is; rank 0 decides.
"""

from __future__ import annotations

from dist_loader.watchdog.own import Meeting
from dist_loader.watchdog.place import Notes
from dist_loader.watchdog.verdict import Limits
from dist_loader.watchdog.watch import Watch

__all__ = ["Limits", "Meeting", "Notes", "Watch"]
