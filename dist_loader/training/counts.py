"""What losses count together over all slices and ranks, such as the tokens that no mask hides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dist_loader.devices import Devices
from dist_loader.training.alarm import Alarm


@dataclass(frozen=True)
class Counts:
    """Counts over the world.

    Attributes:
        total: makes a function that gives, for one loss after another, what all counted.
        sum_of_shares: of all ranks, scalar float32; None if every sample is real.
    """

    total: Callable[[], Callable[[Any], Any]]
    sum_of_shares: Any | None


def as_they_come(devices: Devices, share: Any | None) -> Counts:
    """Counts that are summed over the world one by one, as the losses ask for them."""
    sum_of_shares = None
    if share is not None:
        (sum_of_shares,) = devices.sum_in_step([share / devices.replicas])
    return Counts(lambda: lambda count: devices.sum_in_step([count])[0], sum_of_shares)


def over_world(devices: Devices, counts: Sequence[Any], share: Any | None, alarm: Alarm | None) -> Counts:
    """Counts of this process, summed over the world in one message."""
    shares = [] if share is None else [share / devices.replicas]
    totals = devices.sum_in_step([*counts, *shares], name="counts")
    if alarm is not None:
        totals = alarm.counts_sent(totals)
    of_losses, of_shares = totals[: len(counts)], totals[len(counts) :]

    def in_turn() -> Callable[[Any], Any]:
        following = iter(of_losses)
        return lambda count: next(following)

    return Counts(in_turn, of_shares[0] if of_shares else None)
