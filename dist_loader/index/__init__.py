"""Which samples exist: paths and labels, made from a folder, kept in a file, and shared by the ranks of a host."""

from __future__ import annotations

from dist_loader.index.index import Index
from dist_loader.index.scan import IMAGE_SUFFIXES

__all__ = ["IMAGE_SUFFIXES", "Index"]
