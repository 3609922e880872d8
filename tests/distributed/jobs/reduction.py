"""Averages of gradients over the ranks, in every grouping and compression. Each rank writes what it got.

reduction.py OUT
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

import dist_loader as dl

SHAPES = [(3, 5), (), (7,), (64, 33), (2, 2, 2)]
WAYS = {
    "one group": {"groups": 1},
    "three groups": {"groups": 3},
    "each by itself": {"groups": 100},
    "fp16": {"compression": "fp16"},
    "bf16": {"compression": "bf16"},
    "bf16, one group": {"compression": "bf16", "groups": 1},
}


def gradients(rank: int) -> list[np.ndarray]:
    """A rank's own."""
    rng = np.random.default_rng(rank)
    return [np.asarray(rng.normal(0, 1, shape), np.float32) for shape in SHAPES]


def share(rank: int) -> np.float32:
    """The part of a rank's samples that is real: none on rank 0."""
    return np.float32(rank / 4)


def main(out: str) -> None:
    """All ways, with and without shares."""
    strategy = dl.init("horovod")
    rank = strategy.world.rank
    got = {}
    for name, how in WAYS.items():
        devices = replace(strategy.devices, **how)
        for weighted in (False, True):

            @tf.function(autograph=False)
            def mean(arrays, share, rider, devices=devices, weighted=weighted):
                return devices.mean_gradients([*arrays, None], share if weighted else None, [rider])

            means, (rider,) = mean(
                [tf.constant(g) for g in gradients(rank)], tf.constant(share(rank)), tf.constant(rank + 1.0)
            )
            assert means.pop() is None
            got |= {f"{name}/{weighted}/{at}": tensor.numpy() for at, tensor in enumerate(means)}
            got[f"{name}/{weighted}/rider"] = rider.numpy()
    np.savez(Path(out) / f"rank-{rank}.npz", **got)


if __name__ == "__main__":
    main(sys.argv[1])
