"""Sequences of different lengths, one after the other in one array, and where each begins."""

from __future__ import annotations

from dist_loader.ragged.given import is_ragged, ragged_of
from dist_loader.ragged.ragged import Ragged

__all__ = ["Ragged", "is_ragged", "ragged_of"]
