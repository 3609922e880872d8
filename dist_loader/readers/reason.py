"""Why a sample could not be read, in one line."""

from __future__ import annotations

from dist_loader.readers.npy import NpyError
from dist_loader.remote.retry import FetchError


def reason_of(error: Exception) -> str:
    """One line that says what went wrong, without the path, which the message already has."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FetchError | NpyError):
        return " ".join(str(error).split())
    return class_and_words(error)


def class_and_words(error: Exception) -> str:
    """One line with an error's class and all that it says."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
