"""What a cache's file looks like: a header, then a slot for every sample, of one length."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import blake2b

SUFFIX = ".samples"
HEADER = 4096  # bytes
MARGIN = 64  # before and behind the pixels: the word, and zeros so that pixels lie at a multiple of it
_FORMAT = 1
_NAME_BYTES = 16


@dataclass(frozen=True)
class Contents:
    """What a cache holds: two caches of different contents never share a file.

    Attributes:
        recipe: all that decides a sample's pixels, apart from the state of the file that it is read from.
        samples: how many there are.
        sample_bytes: bytes of one.
    """

    recipe: str
    samples: int
    sample_bytes: int

    @property
    def name(self) -> str:
        """Of the file."""
        return blake2b(self.header, digest_size=_NAME_BYTES).hexdigest() + SUFFIX

    @property
    def header(self) -> bytes:
        """The first bytes of the file."""
        what = {"format": _FORMAT, "samples": self.samples, "sample_bytes": self.sample_bytes}
        text = f"dist_loader cache {json.dumps(what)}\n".encode()
        digest = blake2b(self.recipe.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        return (text + f"{digest}\n{self.recipe!a}\n".encode())[:HEADER].ljust(HEADER, b"\0")

    @property
    def slot(self) -> int:
        """Bytes from one entry to the next."""
        return 2 * MARGIN + -(-self.sample_bytes // MARGIN) * MARGIN


def is_name(name: str) -> bool:
    """Whether a file with this name is a cache's: others in a folder are nobody's to delete."""
    return re.fullmatch(rf"[0-9a-f]{{{2 * _NAME_BYTES}}}{re.escape(SUFFIX)}", name) is not None
