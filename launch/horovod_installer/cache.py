"""Finished wheels outside of the checkout: kept whole or not at all, built once even if two ask at the same time."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from horovod_installer import recipe


class CacheError(Exception):
    """The cache folder cannot be used."""


@dataclass(frozen=True)
class Cache:
    """A folder of wheels, each with its checksum beside it."""

    folder: Path

    def wheel(self, label: str) -> Path | None:
        """The wheel of this label, whether sound or not."""
        return next(self.folder.glob(f"horovod-{recipe.VERSION}+{label}-*.whl"), None)

    def log(self, label: str) -> Path:
        """Where the build of this label is logged."""
        return self.folder / f"horovod-{recipe.VERSION}+{label}.log"

    def store(self, wheel: Path) -> Path:
        """Takes a wheel in. The checksum goes first, so that a wheel without one was never whole."""
        kept = self.folder / wheel.name
        write_whole(checksum_file(kept), lambda temporary: temporary.write_text(checksum(wheel) + "\n"))
        write_whole(kept, lambda temporary: shutil.copyfile(wheel, temporary))
        return kept

    @contextlib.contextmanager
    def lock(self, before_waiting: Callable[[], None]) -> Iterator[None]:
        """Held by one process at a time; the system frees it when that process dies."""
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                before_waiting()
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def damage(wheel: Path) -> str | None:
    """What is wrong with a cached wheel, or None where it is exactly what was stored."""
    try:
        if checksum_file(wheel).read_text().strip() != checksum(wheel):
            return "its checksum differs"
        with zipfile.ZipFile(wheel) as archive:
            broken = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return str(error)
    return f"{broken} in it is broken" if broken else None


def discard(wheel: Path) -> None:
    """Removes a wheel and its checksum."""
    wheel.unlink(missing_ok=True)
    checksum_file(wheel).unlink(missing_ok=True)


def checksum(file: Path) -> str:
    """SHA-256 in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def checksum_file(wheel: Path) -> Path:
    """Where a wheel's checksum is kept."""
    return wheel.with_name(f"{wheel.name}.sha256")


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Writes a file that is there completely or not at all."""
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as folder:
        temporary = Path(folder) / target.name
        write(temporary)
        temporary.replace(target)


def open_cache(asked: Path | None, variables: Mapping[str, str], prefix: Path) -> Cache:
    """The cache in the first place that can be written.

    A place that was asked for, by flag or by DIST_LOADER_CACHE, is taken or refused. Otherwise the user's cache folder,
    or where that cannot be written (a service account without a home) the environment itself.

    Raises:
        CacheError: it cannot be written.
    """
    if asked or variables.get("DIST_LOADER_CACHE"):
        places = [asked or Path(variables["DIST_LOADER_CACHE"])]
    elif variables.get("XDG_CACHE_HOME"):
        places = [Path(variables["XDG_CACHE_HOME"], "dist_loader"), prefix / "cache"]
    else:
        places = [Path("~", ".cache", "dist_loader"), prefix / "cache"]
    refusals = []
    for place in places:
        try:
            folder = place.expanduser().resolve()
            folder.mkdir(parents=True, exist_ok=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder at all
            refusals.append(f"{place}: {error}")
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return Cache(folder)
        refusals.append(f"{folder}: no permission to write")
    raise CacheError(f"no folder for finished wheels ({'; '.join(refusals)}); name one with --cache DIR")
