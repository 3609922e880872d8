"""Writing an index that is made while it is written, and what its file says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_loader.index import file as index_file
from dist_loader.index.fingerprint import fingerprint
from dist_loader.index.scan import endings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path


def write_blocks(
    path: Path,
    root: str,
    classes: tuple[str, ...],
    arrays: Mapping[str, index_file.Blocks],
    more: Mapping[str, index_file.Blocks],
    **facts: Any,
) -> str:
    """Writes an index without ever holding it in memory; its fingerprint.

    Args:
        path: the file; it is replaced.
        root: as an index has it.
        classes: as an index has them.
        arrays: the index's "offsets", "labels" and "paths".
        more: other arrays for the file.
        facts: other facts for its header.

    Raises:
        ConfigError: it cannot be written.
    """
    with index_file.replacing(path) as temporary:
        header = header_of(root, classes, arrays["labels"].length, "0" * 32) | facts
        index_file.write(temporary, header, {**arrays, **more})
        written = index_file.read(temporary).arrays
        made = fingerprint(classes, written["labels"], written["paths"], written["offsets"])
        index_file.write_header(temporary, header | {"fingerprint": made})
    return made


def header_of(root: str, classes: tuple[str, ...], samples: int, fingerprint: str) -> dict[str, Any]:
    """What the file says of an index."""
    return {"root": root, "classes": classes, "samples": samples, "fingerprint": fingerprint}


def cache_key(top: Path, suffixes: Collection[str], classes: tuple[str, ...] | None) -> dict[str, Any]:
    """What makes an index in a cache what it is."""
    return {"root": str(top), "suffixes": endings(suffixes), "classes": classes and list(classes)}
