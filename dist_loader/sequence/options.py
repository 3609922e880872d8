"""What every kind of sequence can be told, by name: see `BatchSequence`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypedDict

import numpy.typing as npt

from dist_loader.bad_samples import OnBad
from dist_loader.plan import Remainder
from dist_loader.sequence.augment import Augment
from dist_loader.sequence.balance import Shares
from dist_loader.sequence.order import Order
from dist_loader.topology import Topology
from dist_loader.world import World


class Options(TypedDict, total=False):
    """The arguments of `BatchSequence` that all sequences take over."""

    strategy: Topology | None
    world: World | None
    seed: int
    shuffle: bool
    remainder: Remainder
    global_batch: int | None
    sample_weight: npt.ArrayLike | None
    class_weight: Mapping[int, float] | None
    threads: int | None
    timeout: float
    on_bad: OnBad
    bad_budget: float | None
    bad_file: str | os.PathLike[str] | None
    host_passes: int
    class_shares: Shares | None
    epoch_samples: int | None
    augment: Augment | None
    augment_batch: Augment | None
    order: Order | None
