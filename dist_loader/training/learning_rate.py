"""The learning rate of a larger global batch."""

from __future__ import annotations

import math
from typing import Literal, get_args

from dist_loader.errors import ConfigError

Rule = Literal["none", "linear", "sqrt"]


def scaled_learning_rate(base: float, devices: int, rule: Rule = "none") -> float:
    """A learning rate that was chosen for one device, for a global batch that is `devices` times as large.

    Both rules want a warm-up from the base rate over the first epochs.

    Args:
        base: the learning rate for one device.
        devices: devices of all ranks together.
        rule: `"linear"`: times devices (Goyal et al. 2017, "Accurate, Large Minibatch SGD"); `"sqrt"`: times their
            square root (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"); `"none"`.

    Raises:
        ConfigError: an unknown rule.
    """
    if rule not in get_args(Rule):
        raise ConfigError(f"the learning-rate rule must be one of {', '.join(get_args(Rule))}, not {rule!r}")
    return base * {"none": 1.0, "linear": float(devices), "sqrt": math.sqrt(devices)}[rule]
