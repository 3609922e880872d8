"""How gradients travel: in groups, each averaged as soon as the backward pass has made its gradients; or compressed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

Compression = Literal["none", "fp16", "bf16"]


def grouped(sizes: Sequence[int], groups: int) -> list[range]:
    """The places of tensors in at most so many groups of neighbours, of about equal sizes.

    Neighbours, because the backward pass makes the gradients of neighbouring layers at about the same time.

    Args:
        sizes: of the tensors, in any unit.
        groups: at least 1.
    """
    whole, before = max(1, sum(sizes)), itertools.accumulate(sizes, initial=0)
    number = [  # where the middle of a tensor lies, if all lie in a row that is cut into equal parts
        min(groups - 1, (2 * start + size) * groups // (2 * whole)) for start, size in zip(before, sizes, strict=False)
    ]
    cut = [at for at in range(len(sizes)) if at == 0 or number[at] != number[at - 1]]
    return [range(start, end) for start, end in itertools.pairwise([*cut, len(sizes)])]


def averaged(hvd: Any, tensors: Sequence[Any], name: str, compression: Compression) -> list[Any]:
    """The means of tensors of one floating-point type over all ranks, in one message.

    Args:
        hvd: `horovod.tensorflow`.
        tensors: of one type.
        name: the same on all ranks, and different for messages that may be under way at the same time.
        compression: of float32 and float64 on the wire.
    """
    kind = tensors[0].dtype
    if compression == "bf16" and kind.size > 2:
        return _averaged_as_bfloat16(hvd, tensors, name)
    # Horovod does not know bfloat16.
    wire = tf.float16 if compression == "fp16" and kind.size > 2 else tf.float32 if kind == tf.bfloat16 else kind
    if wire == kind:
        return list(hvd.grouped_allreduce(list(tensors), op=hvd.Average, name=name, ignore_name_scope=True))
    # Divided before, so that the sum of many ranks does not leave float16's range.
    parts = [tf.cast(tensor / hvd.size(), wire) for tensor in tensors]
    sums = hvd.grouped_allreduce(parts, op=hvd.Sum, name=name, ignore_name_scope=True)
    return [tf.cast(total, kind) for total in sums]


def _averaged_as_bfloat16(hvd: Any, tensors: Sequence[Any], name: str) -> list[Any]:
    """Means of tensors that travel as bfloat16, and are added up in float32.

    Horovod adds up no bfloat16, but moves any 16 bits: each rank gets its part of all ranks' tensors, adds, and gives
    the mean to all (reduce-scatter by alltoall, then allgather). That is half of what an allreduce of float32 moves.
    """
    ranks, kind = hvd.size(), tensors[0].dtype
    sizes = [int(tensor.shape.num_elements()) for tensor in tensors]
    flat = tf.concat([tf.reshape(tf.cast(tensor, tf.bfloat16), [-1]) for tensor in tensors], 0)
    flat = tf.pad(flat, [[0, -sum(sizes) % ranks]])
    mine = hvd.alltoall(_as_bits(flat), name=f"{name}_parts", ignore_name_scope=True)
    mean = tf.reduce_mean(tf.cast(_from_bits(tf.reshape(mine, [ranks, -1])), tf.float32), 0)
    means = hvd.allgather(_as_bits(tf.cast(mean, tf.bfloat16)), name=f"{name}_means", ignore_name_scope=True)
    parts = tf.split(tf.reshape(_from_bits(means), [-1])[: sum(sizes)], sizes)
    return [tf.cast(tf.reshape(part, tensor.shape), kind) for part, tensor in zip(parts, tensors, strict=True)]


def _as_bits(tensor: Any) -> Any:
    """bfloat16 in the guise of float16, which every transport moves and none looks into."""
    return tf.bitcast(tensor, tf.float16)


def _from_bits(tensor: Any) -> Any:
    return tf.bitcast(tensor, tf.bfloat16)
