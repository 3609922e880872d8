"""Tables: rows of numbers, labels and paths, and which of their columns a training takes."""

from __future__ import annotations

from dist_loader.table.table import Table

__all__ = ["Table"]
