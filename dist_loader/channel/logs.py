"""The ranks' log files in one folder, also where their hosts do not share it."""

from __future__ import annotations

import logging
import secrets
from contextlib import suppress
from pathlib import Path

from dist_loader.channel.channel import SECONDS, Channel

_log = logging.getLogger("dist_loader")

_WHAT = "gathering the logs"


def gather_logs(channel: Channel, folder: Path, most: int = 1 << 20, seconds: float | None = SECONDS) -> list[Path]:
    """Bring the end of each rank's `rank-N.log` to rank 0's folder of that name.

    Every rank calls this alike. Ranks that see rank 0's folder itself send nothing. What cannot be read or written is
    warned of, and no error.

    Args:
        channel: of all ranks.
        folder: where each rank has its file; on rank 0 it is made if need be.
        most: bytes of each file; of a longer one, its last whole lines.
        seconds: that a rank is waited for.

    Returns:
        On rank 0, what was written.
    """
    if channel.size == 1:
        return []
    token = bytes(channel.broadcast(f".here-{secrets.token_hex(8)}".encode(), _WHAT, seconds)).decode()
    if channel.rank == 0:
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / token).touch()
    channel.barrier(_WHAT, seconds)
    shared = channel.rank == 0 or (folder / token).exists()
    parts = channel.gather(b"" if shared else _end(folder / f"rank-{channel.rank}.log", most), _WHAT, seconds)
    if channel.rank == 0:
        with suppress(OSError):
            (folder / token).unlink()
    written = []
    for rank, part in enumerate(parts):
        if part:
            try:
                (folder / f"rank-{rank}.log").write_bytes(part)
                written.append(folder / f"rank-{rank}.log")
            except OSError as error:
                _log.warning("cannot write the log of rank %d to %s: %s", rank, folder, error.strerror)
    return written


def _end(file: Path, most: int) -> bytes:
    """The last lines of a file; nothing if there is none."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(0, size - most))
            text = opened.read(most)
    except FileNotFoundError:
        return b""
    except OSError as error:
        _log.warning("cannot read %s: %s", file, error.strerror)
        return b""
    if size <= most:
        return text
    cut = text.find(b"\n") + 1
    return b"(%d bytes before this are only on its host)\n" % (size - len(text) + cut) + text[cut:]
