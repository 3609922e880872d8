"""The learning rate of a larger global batch."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args, overload

import keras

from dist_loader.errors import ConfigError

Rule = Literal["none", "linear", "sqrt"]


@overload
def scaled_learning_rate(base: float, devices: int, rule: Rule = "none") -> float: ...
@overload
def scaled_learning_rate(base: float, devices: int, rule: Rule = "none", *, warmup_steps: int) -> Any: ...
def scaled_learning_rate(base: float, devices: int, rule: Rule = "none", *, warmup_steps: int = 0) -> Any:
    """A learning rate that was chosen for one device, for a global batch that is `devices` times as large.

    Both rules want a warm-up over the first epochs.

    Args:
        base: the learning rate for one device.
        devices: devices of all ranks together.
        rule: `"linear"`: times devices (Goyal et al. 2017, "Accurate, Large Minibatch SGD"); `"sqrt"`: times their
            square root (Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks"); `"none"`.
        warmup_steps: updates in which the rate rises from `base` in even steps.

    Returns:
        A number; or with a warm-up, a schedule of Keras's own that then stays at the scaled rate.

    Raises:
        ConfigError: an unknown rule, or a negative number of steps.
    """
    if rule not in get_args(Rule):
        raise ConfigError(f"the learning-rate rule must be one of {', '.join(get_args(Rule))}, not {rule!r}")
    if isinstance(warmup_steps, bool) or not isinstance(warmup_steps, int) or warmup_steps < 0:
        raise ConfigError(f"warmup_steps must be a whole number of at least 0, not {warmup_steps!r}")
    highest = base * {"none": 1.0, "linear": float(devices), "sqrt": math.sqrt(devices)}[rule]
    if not warmup_steps:
        return highest
    return keras.optimizers.schedules.PolynomialDecay(base, warmup_steps, highest, name=f"{rule}_scaling_with_warm_up")


def described(optimizer: Any) -> str:
    """An optimizer's learning rate in words: a number, or a schedule with its settings."""
    rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        return f"{float(rate.numpy()):g}"
    settings = {name: value for name, value in rate.get_config().items() if value is not None and name != "name"}
    return f"{rate.name}({', '.join(f'{name}={value}' for name, value in settings.items())})"
