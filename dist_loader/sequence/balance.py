"""Epochs in which classes have given shares, whatever their shares of the samples are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dist_loader.errors import ConfigError
from dist_loader.permutation import Permutation

_BLOCK = 1 << 16  # labels

Shares: TypeAlias = 'Mapping[int, float] | Literal["equal"]'


class BalancedOrder:
    """An order in which every epoch draws a fixed number of samples of each class.

    The draws of an epoch, class after class, are shuffled. The draws of a class go through its samples in a shuffled
    order, from one epoch into the next, and are shuffled anew when all had their turn: so each sample of a class is
    drawn as often as any other of it, give or take one, however long the training. All of it is computed from (seed,
    epoch, position), as in `Permutation`; nothing is drawn in turn.

    Args:
        labels: (samples,) integers from 0.
        shares: how much of an epoch each label has, by label; they are divided by their sum, and a label that is not
            there has none. "equal": all labels that have samples have the same.
        draws: samples in an epoch; None: as many as there are.
        seed: of the shuffling, any int.
        shuffle: False keeps the draws of a class together, and its samples in order.

    Raises:
        ConfigError: a share below 0 or of a label without samples, or none above 0.
    """

    def __init__(
        self, labels: npt.NDArray[np.integer], shares: Shares, draws: int | None, seed: int, shuffle: bool = True
    ) -> None:
        counts, ascending = _counted(labels)
        by_label = np.flatnonzero(counts)
        self._labels, weights = _checked(shares, counts, by_label)
        self.draws = len(labels) if draws is None else _whole(draws)
        self._seed = seed
        self._shuffle = shuffle
        self._of_epoch = _apportioned(self.draws, weights)
        self._ends = np.cumsum(self._of_epoch)
        self._counts = counts[self._labels]
        self._by_label = None if ascending else np.argsort(labels, kind="stable")
        self._firsts = (np.cumsum(counts) - counts)[self._labels]
        self._within = lru_cache(4 * len(self._labels) + 64)(self._order_of_class)

    @property
    def exactly_once(self) -> bool:
        """False: some samples may be drawn twice, and some not at all."""
        return False

    @property
    def fingerprint(self) -> str:
        """The draws of each label."""
        given = ",".join(f"{label}:{count}" for label, count in zip(self._labels, self._of_epoch, strict=True))
        return f"balanced {hashlib.blake2b(given.encode(), digest_size=8).hexdigest()} of {self.draws}"

    def draws_by_label(self) -> dict[int, int]:
        """How many samples of each label an epoch draws."""
        return dict(zip(self._labels.tolist(), self._of_epoch.tolist(), strict=True))

    def samples(self, epoch: int, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The samples at some positions of an epoch, of the same shape."""
        flat = positions.ravel()
        draws = Permutation(self.draws, self._seed, epoch)[flat] if self._shuffle else flat
        places = np.searchsorted(self._ends, draws, side="right")  # of the draws' labels
        drawn = epoch * self._of_epoch[places] + draws - (self._ends - self._of_epoch)[places]  # since the beginning
        rounds, within = np.divmod(drawn, self._counts[places])
        if self._shuffle:
            pairs, inverse = np.unique(np.stack([places, rounds]), axis=1, return_inverse=True)
            for at, (place, turn) in enumerate(pairs.T.tolist()):
                rows = inverse == at
                within[rows] = self._within(place, turn)[within[rows]]
        found = self._firsts[places] + within
        return (found if self._by_label is None else self._by_label[found]).reshape(positions.shape)

    def _order_of_class(self, place: int, turn: int) -> Permutation:
        text = f"{self._seed:x},{self._labels[place]:x}".encode()
        digest = hashlib.blake2b(text, digest_size=16, person=b"dist_loader.bal").digest()
        return Permutation(int(self._counts[place]), int.from_bytes(digest, "little"), turn)


def _counted(labels: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.int64], bool]:
    """How many samples each label has, and whether labels ascend; 100 million at once would be 800 MB as int64."""
    counts, ascending = np.zeros(0, np.int64), True
    for at in range(0, len(labels), _BLOCK):
        block = labels[at : at + _BLOCK + 1]
        ascending = ascending and bool((block[1:] >= block[:-1]).all())
        more = np.bincount(block[:_BLOCK])
        counts, more = (counts, more) if len(counts) >= len(more) else (more, counts)
        counts[: len(more)] += more
    return counts, ascending


def _checked(
    shares: Any, counts: npt.NDArray[np.int64], present: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The labels that are drawn, ascending, and their shares."""
    if isinstance(shares, str):
        if shares != "equal":
            raise ConfigError(f'class_shares must be "equal" or shares by label, not {shares!r}')
        return present, np.full(len(present), 1 / max(1, len(present)))
    for label, share in shares.items():
        if not np.isfinite(share) or share < 0:
            raise ConfigError(f"class_shares gives the label {label} the share {share}; it must be 0 or more")
        if share > 0 and not (0 <= label < len(counts) and counts[label]):
            raise ConfigError(f"class_shares names the label {label}, of which there is no sample")
    drawn = sorted(label for label, share in shares.items() if share > 0)
    if not drawn:
        raise ConfigError("class_shares has no share above 0")
    given = np.array([shares[label] for label in drawn], np.float64)
    return np.array(drawn, np.int64), given / given.sum()


def _apportioned(draws: int, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Whole numbers in proportion to the shares, whose sum is `draws`: those with the largest fractions round up."""
    exact = shares * draws
    whole = np.floor(exact).astype(np.int64)
    up = np.argsort(whole - exact, kind="stable")[: draws - int(whole.sum())]
    whole[up] += 1
    return whole


def _whole(draws: object) -> int:
    if isinstance(draws, bool) or not isinstance(draws, int | np.integer) or draws < 1:
        raise ConfigError(f"epoch_samples must be a whole number of at least 1, not {draws!r}")
    return int(draws)
