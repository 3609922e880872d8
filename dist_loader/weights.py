"""The weights of samples: those that a user gives, and those that make the mean over a filled batch exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.index import Index


@dataclass(frozen=True, eq=False)
class OwnWeights:
    """The samples' own weights: those given by sample times those given by class.

    Multiplied for a batch at a time, so that weights of classes take no memory for each sample.

    Attributes:
        by_sample: (samples,) float32; None if all are 1.
        by_label: (classes,) float32; None if all are 1.
        labels: (samples,), of the index.
    """

    by_sample: npt.NDArray[np.float32] | None
    by_label: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.int32]

    def __getitem__(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The weights of some samples, float32 of the numbers' shape."""
        weights = np.ones(numbers.shape, np.float32) if self.by_sample is None else self.by_sample[numbers]
        return weights if self.by_label is None else weights * self.by_label[self.labels[numbers]]


def own_weights(
    index: Index, sample_weight: npt.ArrayLike | None, class_weight: Mapping[int, float] | None
) -> OwnWeights | None:
    """What a user gave; None if all samples weigh 1.

    Raises:
        ConfigError: not a weight of 0 or more for each sample, or a class that is not there.
    """
    if sample_weight is None and class_weight is None:
        return None
    by_sample = by_label = None
    if sample_weight is not None:
        by_sample = _checked(np.array(sample_weight, np.float32))
        if by_sample.shape != (len(index),):
            raise ConfigError(
                f"sample_weight must have the shape ({len(index)},), one for each sample, not {by_sample.shape}"
            )
    if class_weight is not None:
        unknown = sorted(set(class_weight) - set(range(len(index.classes))))
        if unknown:
            raise ConfigError(f"class_weight names the label {unknown[0]}, of {len(index.classes)} classes from 0")
        by_label = _checked(np.array([class_weight.get(label, 1.0) for label in range(len(index.classes))], np.float32))
    return OwnWeights(by_sample, by_label, index.labels)


def _checked(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
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
