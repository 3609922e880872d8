"""Batches of samples of similar length: an order that saves padding and keeps everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from dist_loader.permutation import Permutation
from dist_loader.plan import Plan
from dist_loader.sequence.order import Order

Numbers = npt.NDArray[np.int64]
Lengths = Callable[[Numbers], Numbers]

_POOLS_KEPT = 4


class BucketOrder:
    """An epoch's own order, in which the samples of a global batch are of similar length.

    The epoch is divided into pools of some global batches, as they come. The samples of a pool are sorted by length and
    divided into global batches again; a batch's samples keep the order that they had, so that no rank has the shorter
    ones, and the batches of a pool come in an order that follows from (seed, epoch, pool) (sorted by length, if the
    plan does not shuffle). Samples that do not fill a batch stay last, as they are. So every position of an epoch has
    its sample, each sample its position, and only the pool that a position is in has to be known to find it.

    Args:
        plan: how long an epoch and a global batch are, how it is shuffled.
        inner: the order of an epoch before; None: the plan's own.
        pool: global batches that are sorted together.
        lengths: from samples to their lengths.
        recipe: a text that says what the lengths follow from, apart from the samples.
    """

    def __init__(self, plan: Plan, inner: Order | None, pool: int, lengths: Lengths, recipe: str) -> None:
        self._whole = plan.samples // plan.global_batch * plan.global_batch
        self._pool = pool * plan.global_batch
        self._first = partial(_own_order, plan) if inner is None else inner.samples
        self._sorted = lru_cache(_POOLS_KEPT)(
            partial(_sorted_pool, self._first, plan, self._pool, self._whole, lengths)
        )
        self.draws = plan.samples
        self.exactly_once = inner is None or inner.exactly_once
        before = "" if inner is None else f" of {inner.fingerprint}"
        self.fingerprint = f"buckets of {pool} batches of {plan.global_batch} by {recipe}{before}"

    def samples(self, epoch: int, positions: Numbers) -> Numbers:
        """The samples at some positions, of the same shape."""
        found = np.empty_like(positions)
        pools = positions // self._pool
        rest = positions >= self._whole
        if rest.any():
            found[rest] = self._first(epoch, positions[rest])
            pools[rest] = -1
        for pool in np.unique(pools[~rest]).tolist():
            here = pools == pool
            found[here] = self._sorted(epoch, pool)[positions[here] - pool * self._pool]
        return found


def _own_order(plan: Plan, epoch: int, positions: Numbers) -> Numbers:
    return Permutation(plan.samples, plan.seed, epoch)[positions] if plan.shuffle else positions


def _sorted_pool(
    first: Callable[[int, Numbers], Numbers],
    plan: Plan,
    length: int,
    whole: int,
    lengths: Lengths,
    epoch: int,
    pool: int,
) -> Numbers:
    """The samples of a pool, of up to `length` positions, none beyond `whole`."""
    numbers = first(epoch, np.arange(pool * length, min((pool + 1) * length, whole), dtype=np.int64))
    batches = np.argsort(lengths(numbers), kind="stable").reshape(-1, plan.global_batch)
    if plan.shuffle:
        text = f"{plan.seed:x},{epoch:x},{pool:x}".encode()
        digest = hashlib.blake2b(text, digest_size=16, person=b"dist_loader.pool").digest()
        batches = batches[Permutation(len(batches), int.from_bytes(digest, "little"), 0)[:]]
    found: Numbers = numbers[np.sort(batches, axis=1).reshape(-1)]
    return found
