"""FFCV. Its one release, 1.0.2, has no wheel, and its build needs the C++ headers of OpenCV and of libjpeg-turbo."""

from __future__ import annotations

from typing import NoReturn

from benchmarks.loader.corpus import Corpus


class DoesNotBuild(Exception):
    """Says what stops it."""


def open_way(corpus: Corpus, cores: int) -> NoReturn:
    """Always an error: what never ran here is not measured."""
    raise DoesNotBuild(
        "pip install ffcv: 'Could not find required package: opencv' (no wheel; its source wants the C++ headers of "
        "OpenCV and libjpeg-turbo)"
    )
