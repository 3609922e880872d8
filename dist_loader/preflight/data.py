"""What this host sees of the data, within a bounded time."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dist_loader.errors import DistLoaderError
from dist_loader.preflight.facts import Data

if TYPE_CHECKING:
    from collections.abc import Iterable

SOME = 8  # class folders whose files are compared where there is no time for all
MOST = 20_000  # names of each of them that are compared
CLASSES = "class folders"


def look(path: str, seconds: float) -> Data:
    """The fingerprint of a folder's index, or of a saved one; in part, if the time is too short for all.

    It works in a thread that may be left behind: a network file system can hang for ever, and the process then ends
    without it.
    """
    seen: list[Data] = []
    deadline = time.monotonic() + seconds
    thread = threading.Thread(target=_look, args=(path, deadline, seen), daemon=True)
    thread.start()
    thread.join(seconds + 0.5)  # it keeps to the deadline by itself where the file system answers
    return seen[-1] if seen else Data(problem=f"{path} does not answer within {seconds:g} s")


def _look(path: str, deadline: float, seen: list[Data]) -> None:
    try:
        if Path(path).is_file():
            seen.append(_saved(path))
        else:
            _folder(path, deadline, seen)
    except TimeoutError:
        pass
    except (DistLoaderError, OSError) as error:
        seen.append(Data(problem=str(error)))


def _saved(path: str) -> Data:
    from dist_loader.index import Index  # NumPy takes a tenth of a second

    index = Index.open(path)
    steps = sorted({number * (len(index) - 1) // (SOME - 1) for number in range(SOME)}) if len(index) else []
    missing = next((index.path(number) for number in steps if not os.path.lexists(index.path(number))), None)
    if missing is not None:
        return Data(problem=f"{path} is there, but of its images, {missing} is not")
    return Data(fingerprint=index.fingerprint, samples=len(index))


def _folder(path: str, deadline: float, seen: list[Data]) -> None:
    """First what is quick, so that something is known when the time is over; then all."""
    from dist_loader.index import Index
    from dist_loader.index.build import build
    from dist_loader.index.scan import IMAGE_SUFFIXES, class_folders

    def in_time(_: object = None) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError

    top = os.fsencode(path)
    folders, _ = class_folders(top, IMAGE_SUFFIXES)
    parts = {CLASSES: f"{len(folders)}, {_digest(folders)}"}
    seen.append(Data(parts=dict(parts)))
    for number in sorted({n * (len(folders) - 1) // (SOME - 1) for n in range(SOME)}):
        in_time()
        parts[os.fsdecode(folders[number])] = _names(top + b"/" + folders[number])
        seen.append(Data(parts=dict(parts)))
    built = build(top, IMAGE_SUFFIXES, None, 16, in_time)
    index = Index(path, *built.parts())
    seen.append(Data(fingerprint=index.fingerprint, samples=len(index), parts=parts))


def _names(folder: bytes) -> str:
    """A digest of the names directly in a folder, of so many as can be compared soon."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > MOST:
                return f"more than {MOST}"
    return _digest(sorted(names))


def _digest(names: Iterable[bytes]) -> str:
    return hashlib.blake2b(b"\0".join(names), digest_size=8).hexdigest()
