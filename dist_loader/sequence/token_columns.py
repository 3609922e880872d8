"""What belongs to the tokens of a sequence: rows of an embedding, targets, weights; as a user gave it, checked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.npy import array_of, mapped
from dist_loader.ragged import Ragged, is_ragged, ragged_of
from dist_loader.readers.tokens import MASK, TARGETS, WEIGHTS, Limits, TokenColumn
from dist_loader.sequence.columns import Labels, integer_labels, label_column, mapped_columns
from dist_loader.sizes import at_least_one

_MONSTER = 16  # times the mean: the length from which a sequence is worth a word


def room_for(tokens: Ragged, maxlen: int | None, fixed: bool) -> int:
    """Tokens that a row has space for.

    Args:
        tokens: the sequences.
        maxlen: tokens at most; None: as many as the longest has.
        fixed: whether rows have space for `maxlen` even if no sequence needs it.
    """
    most = None if maxlen is None else at_least_one("maxlen", maxlen)
    if most is not None and fixed:
        return most
    number, longest = tokens.longest
    mean = len(tokens.values) / max(1, len(tokens))
    if most is None and longest > _MONSTER * max(mean, 1):
        warnings.warn(
            f"{tokens.name}[{number}] has {longest} tokens, the mean is {mean:.0f}: every sample takes memory for "
            f"{longest}; give maxlen, or leave it out",
            stacklevel=3,
        )
    return max(1, longest if most is None else min(most, longest))


def token_column(
    tokens: Ragged, embedding: str | os.PathLike[str] | npt.ArrayLike | None, vocabulary: int | None, pad_value: int
) -> TokenColumn:
    """The tokens themselves, or their rows in a table."""
    if tokens.values.ndim != 1:
        raise ConfigError(f"{tokens.name} must be sequences of numbers, not of arrays of {tokens.values.shape[1:]}")
    table = None if embedding is None else array_of(embedding, "embedding")
    if table is not None:
        if table.ndim != 2 or table.dtype.kind != "f" or not table.size:
            raise ConfigError(
                f"embedding must be a table of fractions, (vocabulary, width), not {table.dtype} {table.shape}"
            )
        if pad_value != 0 or (vocabulary is not None and vocabulary > len(table)):
            raise ConfigError(
                f"with an embedding, padding is zeros, and the vocabulary its {len(table)} rows at most; not "
                f"pad_value={pad_value} and vocabulary={vocabulary}"
            )
        vocabulary = len(table) if vocabulary is None else vocabulary
    if isinstance(pad_value, bool) or not isinstance(pad_value, int) or abs(pad_value) >= 2**31:
        raise ConfigError(f"pad_value must be a whole number of 32 bits, not {pad_value!r}")
    limits = _limits(tokens, None if vocabulary is None else at_least_one("vocabulary", vocabulary))
    return TokenColumn("token", tokens, limits, table, padding=pad_value)


def _limits(data: Ragged, count: int | None) -> Limits | None:
    """For whole numbers: from 0 to below a count, or just of 32 bits; None if their type keeps to that."""
    limits = Limits() if count is None else Limits(0, count)
    return None if limits.hold(data.values.dtype) else limits


@dataclass(frozen=True, eq=False)
class Targets:
    """What Keras gets as y, and where it comes from.

    Attributes:
        y: as in `Structure`.
        columns: those of the reader.
        of_samples: as a user gave them, if they are no columns.
        labels: one integer for each sample, if the targets are that.
    """

    y: Any = None
    columns: Mapping[str, TokenColumn] = field(default_factory=dict)
    of_samples: Any = None
    labels: npt.NDArray[np.integer] | None = None


def targets_for(given: Any, tokens: Ragged, labels: Labels, classes: int | None) -> Targets:
    """Targets of tokens or of samples."""
    count = None if classes is None else at_least_one("classes", classes)
    if labels == "one-hot" and count is None:
        raise ConfigError('labels="one-hot" needs classes: the length of the vectors')
    if given is None:
        return Targets()
    if is_ragged(given):
        return Targets(TARGETS, {TARGETS: _target_column(ragged_of(given, "targets", "iuf"), tokens, labels, count)})
    rows = mapped(given, "targets") if isinstance(given, str | os.PathLike) else given
    rows = mapped_columns(rows, len(tokens), "targets", lambda name: False)
    numbers = integer_labels(rows)
    if count is None:
        return Targets(rows, of_samples=rows, labels=numbers)
    if numbers is None or (len(numbers) and int(numbers.max()) >= count):
        raise ConfigError(f"targets must be whole numbers from 0 to {count - 1}, for there are {count} classes")
    return Targets(label_column(numbers, count, labels), of_samples=rows, labels=numbers)


def _target_column(targets: Ragged, tokens: Ragged, labels: Labels, classes: int | None) -> TokenColumn:
    targets.require_lengths_of(tokens)
    whole = targets.values.dtype.kind in "iu"
    if classes is not None and not (whole and targets.values.ndim == 1):
        raise ConfigError(f"{targets.name} must be whole numbers, one for each token, for there are {classes} classes")
    limits = _limits(targets, classes) if whole else None
    return TokenColumn("target", targets, limits, one_hot=classes or 0 if labels == "one-hot" else 0)


def weights_for(given: Any, tokens: Ragged, of_tokens: bool) -> tuple[str | None, Mapping[str, TokenColumn]]:
    """The name of the array with the weights of tokens, if there are any, and a column for it if it takes one.

    Args:
        given: the weights; True: 1 for each token; False: none; None: 1 if the targets are of tokens.
        tokens: the sequences.
        of_tokens: whether the targets are of tokens.
    """
    if given is None or given is False:
        return (MASK if of_tokens and given is None else None), {}
    if not of_tokens:
        raise ConfigError("token_weight is for targets of tokens; for targets of samples there is sample_weight")
    if given is True:
        return MASK, {}
    weights = ragged_of(given, "token_weight", "iuf")
    weights.require_lengths_of(tokens)
    if weights.values.ndim != 1:
        raise ConfigError(f"{weights.name} must be numbers, not arrays of {weights.values.shape[1:]}")
    return WEIGHTS, {WEIGHTS: TokenColumn("weight", weights, Limits(0, np.inf))}
