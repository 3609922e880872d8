"""Decoded samples on a disk, shared by the processes of a host."""

from __future__ import annotations

from dist_loader.cache.entries import STATE_BYTES, Cache
from dist_loader.cache.layout import Contents

__all__ = ["STATE_BYTES", "Cache", "Contents"]
