"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(target: Path, text: str) -> None:
    """Write a small text file; a reader sees the one before or this one, also after a kill or a loss of power.

    Raises:
        OSError: it cannot be written. What was there before stays.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    flush_names(target.parent)


def flush_names(folder: Path) -> None:
    """See to it that what was renamed or removed in a folder has reached the disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
