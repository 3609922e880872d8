"""Where the index of a scan goes: into a file, into the cache that trainings look into, or nowhere but into words."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from dist_loader.errors import ConfigError
from dist_loader.index.build import checked_classes
from dist_loader.index.cache import name_for
from dist_loader.index.divided import Gathered
from dist_loader.index.index import Index
from dist_loader.index.scan import IMAGE_SUFFIXES, LAYOUT
from dist_loader.index.selection import gathered as in_memory
from dist_loader.index.writing import cache_key, write_blocks
from dist_loader.remote.address import local_folder, redacted, scheme_of


@dataclass
class Kept:
    """What is asked for, and where it goes.

    Attributes:
        top: the folder of class folders, absolute.
        suffixes: what an image's name ends with.
        classes: the classes and their numbering; None: the folders in byte order.
        out: a file, if any.
        cache: the cache's file, if any.
        fingerprint: of the index, once it is kept.
    """

    top: bytes
    suffixes: Collection[str]
    classes: tuple[str, ...] | None
    out: Path | None
    cache: Path | None
    fingerprint: str = ""

    @classmethod
    def of(
        cls,
        folder: str,
        suffixes: Collection[str] | None,
        classes: Sequence[str] | None,
        out: str | None,
        cache: str | None,
    ) -> Kept:
        """From what a user gives.

        Raises:
            ConfigError: it makes no sense.
        """
        if scheme_of(folder):
            raise ConfigError(f"scan is for folders, not {redacted(folder)!r}: use Index.from_directory, and save")
        if not folder:
            raise ConfigError(f"no image folder given (empty path); {LAYOUT}")
        top = Path(folder).absolute()
        wanted = None if classes is None else checked_classes(classes)
        endings = IMAGE_SUFFIXES if suffixes is None else tuple(suffixes)
        key = cache_key(top, endings, wanted)
        file = None if cache is None else local_folder("cache", cache).absolute() / name_for(top.name, key)
        return cls(os.fsencode(top), endings, wanted, None if out is None else Path(out).absolute(), file)

    def keep(self, found: Gathered) -> None:
        """Write what was found.

        Raises:
            ConfigError: it cannot be written.
        """
        root = os.fsdecode(self.top)
        if self.out is not None:
            self.fingerprint = write_blocks(self.out, root, found.classes, found.arrays, {})
        if self.cache is not None:
            facts = {"key": cache_key(Path(root), self.suffixes, self.classes), "settled": found.stamps.settled}
            more = found.stamps.arrays()
            self.fingerprint = write_blocks(self.cache, root, found.classes, found.arrays, more, **facts)
        if not self.fingerprint:
            labels, paths, offsets = (in_memory(found.arrays[name]) for name in ("labels", "paths", "offsets"))
            self.fingerprint = Index(root, found.classes, labels, paths, offsets).fingerprint

    def tell(self, found: Gathered, seconds: float, ranks: int) -> None:
        """Say what was found."""
        samples = found.arrays["labels"].length
        print(
            f"{samples:,} images in {found.folders:,} folders, {len(found.classes):,} classes, fingerprint "
            f"{self.fingerprint}; {seconds:.1f} s on {ranks} rank{'s' if ranks > 1 else ''}"
        )
        for file in (self.out, self.cache):
            if file is not None:
                print(f"written: {file}")
