"""Addresses such as s3://bucket/folder/image.jpg: what tells them from paths, and what of them may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dist_loader.errors import ConfigError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/(?:/|$)")  # "s3:/" is what addresses of several buckets share
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>]+")


def scheme_of(path: str) -> str | None:
    """The scheme of an address, such as "s3", in small letters; None for a path of this machine."""
    match = _SCHEME.match(path)
    return match[1].lower() if match else None


def local_folder(option: str, given: object) -> Path:
    """A folder of this machine, as a user gave it for an option.

    Raises:
        ConfigError: it is none: an address, empty, or no path at all.
    """
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path or scheme_of(path) is not None:
        shown = redacted(path) if isinstance(path, str) else given
        raise ConfigError(f"{option} must be a folder, not {shown!r}; mount what is remote, and give its path")
    return Path(path)


def redacted(path: str) -> str:
    """An address for a message: without user, password, query and fragment, which may be credentials.

    A path of this machine stays as it is.
    """
    if scheme_of(path) is None:
        return path
    plain = re.split(r"[?#]", path, maxsplit=1)[0]
    scheme, _, rest = plain.partition("://")
    host, slash, below = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{below}{'?...' if plain != path else ''}"


def redacted_text(text: str) -> str:
    """A text on one line, with the addresses in it redacted."""
    return _ADDRESS.sub(lambda match: redacted(match[0]), " ".join(text.split()))
