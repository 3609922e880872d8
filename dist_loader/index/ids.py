"""From ids, such as those of `partition["train"]`, to an index of one file each."""

from __future__ import annotations

import os
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.index.index import Index
from dist_loader.remote.address import scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_ID = "{id}"


def index_of_ids(ids: Iterable[Any], files: str | os.PathLike[str]) -> Index:
    """An index of one file for each id, in their order, all of class 0.

    No list of paths is made. Ids are data and must not lead out of the folder that `files` names: they may have
    slashes, for folders below it, but no parts "." or ".." and no slash at the beginning.

    Args:
        ids: texts or whole numbers.
        files: where an id's file is: a path or an address with "{id}" in it. "{id}" alone: the ids are paths.

    Raises:
        ConfigError: no ids, one that cannot be, or no "{id}".
    """
    if isinstance(ids, str | bytes | dict | set | frozenset):  # a set has another order in every process
        raise ConfigError(f'ids must be a list, such as partition["train"], not {ids!r:.80}')
    template = os.fspath(files)
    if _ID not in template or {"{", "}"} & set(template.replace(_ID, "")):
        raise ConfigError(f'files must be a path with "{{id}}" in it and no other braces, not {template!r}')
    if template == _ID:
        paths = [os.fspath(one) for one in ids]
        return Index.from_paths(paths, np.zeros(len(paths), np.int32))
    folder, slash, rest = template.partition(_ID)[0].rpartition("/")
    top = folder if scheme_of(template) else os.path.abspath(folder or slash or ".").rstrip("/")  # noqa: PTH100
    name = rest + template[len(folder + slash + rest) :]
    # Flat, growing buffers instead of lists: at no time does a Python object per path exist for the whole set.
    buffer, ends = bytearray(), array("q", [0])
    for one in ids:
        buffer += os.fsencode(name.replace(_ID, _checked(one)))
        ends.append(len(buffer))
    if len(ends) == 1:
        raise ConfigError("there are no ids: the list is empty")
    labels = np.zeros(len(ends) - 1, np.int32)
    return Index(top, ("all",), labels, np.frombuffer(buffer, np.uint8), np.frombuffer(ends, np.int64))


def _checked(one: Any) -> str:
    """An id as a part of a path."""
    if isinstance(one, int | np.integer) and not isinstance(one, bool):
        return str(one)
    if not isinstance(one, str) or not one or "\0" in one:
        raise ConfigError(f"an id must be a text or a whole number, not {one!r:.80}")
    if {".", "..", ""} & set(one.split("/")):
        raise ConfigError(
            f'the id {one!r} would lead out of the folder, or nowhere; if ids are paths, give files="{{id}}"'
        )
    return one
