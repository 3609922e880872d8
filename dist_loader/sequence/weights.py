"""The weights of samples: those that a user gives, and those that make the mean over a filled batch exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dist_loader.sequence.data import Samples


@dataclass(frozen=True, eq=False)
class OwnWeights:
    """The samples' own weights: those given by sample times those given by class.

    Multiplied for a batch at a time, so that weights of classes take no memory for each sample.

    Attributes:
        by_sample: (samples,) float32; None if all are 1.
        by_label: (classes,) float32; None if all are 1.
        labels: (samples,) integers; None if there is nothing by label.
    """

    by_sample: npt.NDArray[np.float32] | None
    by_label: npt.NDArray[np.float32] | None
    labels: npt.NDArray[np.integer] | None

    def __getitem__(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The weights of some samples, float32 of the numbers' shape."""
        weights = np.ones(numbers.shape, np.float32) if self.by_sample is None else self.by_sample[numbers]
        if self.by_label is None or self.labels is None:
            return weights
        of_labels: npt.NDArray[np.float32] = self.by_label[self.labels[numbers]]
        return weights * of_labels


def own_weights(
    samples: Samples, sample_weight: npt.ArrayLike | None, class_weight: Mapping[int, float] | None
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
        if by_sample.shape != (len(samples),):
            raise ConfigError(
                f"sample_weight must have the shape ({len(samples)},), one for each sample, not {by_sample.shape}"
            )
    if class_weight is not None:
        if samples.labels is None:
            raise ConfigError("class_weight is for samples with one integer label each; give sample_weight")
        unknown = sorted(set(class_weight) - set(range(samples.label_count)))
        if unknown:
            raise ConfigError(f"class_weight names the label {unknown[0]}, of {samples.label_count} classes from 0")
        every = [class_weight.get(label, 1.0) for label in range(samples.label_count)]
        by_label = _checked(np.array(every, np.float32))
    return OwnWeights(by_sample, by_label, samples.labels)


def _checked(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ConfigError("weights of samples and classes must be 0 or more, and finite")
    return np.abs(weights)  # no negative zeros: those mark the fill


def mean_weights(
    weights: npt.NDArray[np.float32], own: npt.NDArray[np.float32] | None, of_parts: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    """Weights such that Keras's mean over the batch is the mean over its real samples.

    The fill's zeros are negative, so that they can be told from a real sample of weight 0.

    Args:
        weights: of the plan, 1 or for the fill 0, shape (batch,).
        own: the samples' own, shape (batch,).
        of_parts: those of the samples' parts, such as tokens, shape (batch, ...).
    """
    real = np.count_nonzero(weights)
    scale = np.float32(len(weights) / real if real else 0.0)
    found = np.where(weights > 0, scale if own is None else own * scale, np.float32(-0.0))
    if of_parts is None:
        return found
    shape = (-1, *[1] * (of_parts.ndim - 1))
    fill = np.signbit(found).reshape(shape)
    return np.where(fill, np.float32(-0.0), found.reshape(shape) * np.abs(of_parts))
