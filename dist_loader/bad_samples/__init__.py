"""Samples that cannot be read: what becomes of their places, how many there may be, and where they are written down."""

from __future__ import annotations

from dist_loader.bad_samples.policy import OnBad
from dist_loader.bad_samples.reader import TolerantReader
from dist_loader.bad_samples.register import BadSamples

__all__ = ["BadSamples", "OnBad", "TolerantReader"]
