"""The weights of samples: those that a user gives, and those that make the mean over a filled batch exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.index import Index


def own_weights(
    index: Index, sample_weight: npt.ArrayLike | None, class_weight: Mapping[int, float] | None
) -> npt.NDArray[np.float32] | None:
    """Every sample's own weight, float32 of shape (samples,); None if all are 1."""
    if sample_weight is None and class_weight is None:
        return None
    weights = np.ones(len(index), np.float32) if sample_weight is None else np.array(sample_weight, np.float32)
    if weights.shape != (len(index),):
        raise ConfigError(
            f"sample_weight must have the shape ({len(index)},), one for each sample, not {weights.shape}"
        )
    if class_weight is not None:
        unknown = sorted(set(class_weight) - set(range(len(index.classes))))
        if unknown:
            raise ConfigError(f"class_weight names the label {unknown[0]}, of {len(index.classes)} classes from 0")
        by_label = [class_weight.get(label, 1.0) for label in range(len(index.classes))]
        weights *= np.array(by_label, np.float32)[index.labels]
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ConfigError("weights of samples and classes must be 0 or more, and finite")
    return np.abs(weights)  # no negative zeros: those mark the fill


def mean_weights(weights: npt.NDArray[np.float32], own: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
    """Weights such that Keras's mean over the batch is the mean over its real samples.

    The fill's zeros are negative, so that they can be told from a real sample of weight 0.
    """
    real = np.count_nonzero(weights)
    scale = len(weights) / real if real else 0.0
    return np.where(weights > 0, np.float32(scale) if own is None else own * np.float32(scale), np.float32(-0.0))
