"""The order of an epoch, computed instead of stored.

A shuffled list of 100 million sample numbers costs 800 MB on every rank. Here any part of such a list is computed on
demand from (n, seed, epoch), in constant memory, and is the same on every rank, machine and NumPy version.

Algorithm: a generalised Feistel network with cycle walking, after J. Black and P. Rogaway, "Ciphers with Arbitrary
Finite Domains" (CT-RSA 2002), sections 3 and 4. A number below `height * width >= n` is split into a pair (left, right)
with `left < height` and `right < width`; each round adds a keyed hash of one side to the other side, modulo that
side's size. Every such round can be undone, so the whole is a bijection on range(height * width). A result of n or
more is sent through again until it lands below n, which keeps it a bijection on range(n). The hash is the finaliser of
SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014); its keys come
from BLAKE2b. This is for shuffling, not for secrets.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from dist_loader.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SAMPLES = 2**62

# Chosen by chi-square tests on positions and on neighbouring pairs, over 8,000 to 20,000 seeds and epochs of one
# seed, n from 2 to 257: 2 rounds are far off, 4 visibly so in the pairs (z up to 190), 6 pass, 8 leave a margin.
# Sides smaller than 8 would need more rounds (n = 5 on 3 x 2: positions still off by 2.6% after 8).
_ROUNDS = 8
_MIN_SIDE = 8
_SMALLEST_DOMAIN = _MIN_SIDE * _MIN_SIDE

# The constants of SplitMix64's finaliser, as uint64 once and for all: making a NumPy scalar costs as much as using it.
_MULTIPLIER_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = np.uint64(0x94D049BB133111EB)
_27, _30, _32 = np.uint64(27), np.uint64(30), np.uint64(32)

# Positions are worked on in blocks that stay in the processor's cache, so temporaries do not grow with the request.
_BLOCK = 4096


@dataclass(frozen=True)
class Permutation:
    """A random-looking bijection on range(n); `p[i]` is the sample at position i of the epoch.

    Indexing takes an int (gives an int), a slice (int64 array) or integers of any shape (int64 array of that shape);
    negative positions count from the end. Computing k positions takes O(k) time whatever n is.

    Attributes:
        n: how many samples, 0 to 2**62.
        seed: any int, also negative or longer than 64 bits.
        epoch: 0 or more. (seed 1, epoch 0) and (seed 0, epoch 1) are unrelated orders, and so are those of another n.

    Raises:
        ConfigError: a field is not an int, or out of range.

    Example:
        >>> p = Permutation(10, seed=0, epoch=0)
        >>> sorted(p[:].tolist()) == list(range(10))
        True
    """

    n: int
    seed: int
    epoch: int
    _height: np.uint64 = field(init=False, repr=False, compare=False)
    _width: np.uint64 = field(init=False, repr=False, compare=False)
    _keys: tuple[np.uint64, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("n", "seed", "epoch"):
            object.__setattr__(self, name, _as_int(name, getattr(self, name)))
        if not 0 <= self.n <= MAX_SAMPLES:
            raise ConfigError(f"n must be 0 to 2**62 samples, got {self.n}")
        if self.epoch < 0:
            raise ConfigError(f"epoch must be 0 or more, got {self.epoch}")
        height = max(math.isqrt(max(self.n - 1, 0)) + 1, _MIN_SIDE)
        object.__setattr__(self, "_height", np.uint64(height))
        object.__setattr__(self, "_width", np.uint64(max(-(-self.n // height), _MIN_SIDE)))
        object.__setattr__(self, "_keys", _round_keys(self.n, self.seed, self.epoch))

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        for start in range(0, self.n, _BLOCK):
            yield from self[start : start + _BLOCK].tolist()

    @overload
    def __getitem__(self, positions: int) -> int: ...
    @overload
    def __getitem__(self, positions: slice | NDArray[Any] | Sequence[int]) -> NDArray[np.int64]: ...
    def __getitem__(self, positions: int | slice | NDArray[Any] | Sequence[int]) -> int | NDArray[np.int64]:
        """The samples at the given positions.

        Raises:
            IndexError: a position is not within -n to n-1.
            TypeError: positions are not integers (a boolean mask is not a list of positions).
        """
        if isinstance(positions, slice):
            part = range(self.n)[positions]
            return self._permute(np.arange(part.start, part.stop, part.step, dtype=np.int64))
        if isinstance(positions, (np.ndarray, Sequence)):
            return self._permute(self._checked(np.asarray(positions)))
        position = operator.index(positions)
        self._require_in_range(position)
        return int(self._permute(np.array([position % self.n], dtype=np.int64))[0])

    def _checked(self, positions: NDArray[Any]) -> NDArray[np.int64]:
        """Positions as int64 from 0 to n-1, in an array of their own."""
        if positions.size == 0:
            return np.zeros(positions.shape, dtype=np.int64)
        if positions.dtype.kind not in "iu":
            raise TypeError(f"positions must be integers, got dtype {positions.dtype}")
        # Compared as Python ints: an unsigned position of 2**63 or more must not wrap around.
        self._require_in_range(int(positions.min()))
        self._require_in_range(int(positions.max()))
        signed = positions.astype(np.int64)
        return np.where(signed < 0, signed + self.n, signed)

    def _require_in_range(self, position: int) -> None:
        if not -self.n <= position < self.n:
            raise IndexError(f"position {position} is out of range for a permutation of {self.n} samples")

    def _permute(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Replaces every position (int64, 0 to n-1, any shape) by its sample."""
        flat = positions.reshape(-1)
        if self.n <= _SMALLEST_DOMAIN:
            # Walking from a domain much larger than n would take long: list the domain, and keep what is below n.
            domain = self._encrypt(np.arange(_SMALLEST_DOMAIN, dtype=np.uint64))
            flat[:] = domain[domain < self.n][flat]
            return flat.reshape(positions.shape)
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].view(np.uint64)
            block[:] = self._encrypt(block)
            outside = np.flatnonzero(block >= self.n)
            while outside.size:
                block[outside] = self._encrypt(block[outside])
                outside = outside[block[outside] >= self.n]
        return flat.reshape(positions.shape)

    def _encrypt(self, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The Feistel network: a bijection on range(height * width), uint64 in and out, any length."""
        # Sides are at most 2**31, so sums and products below stay within 64 bits.
        left, right = np.divmod(numbers, self._width)
        for key_left, key_right in zip(self._keys[::2], self._keys[1::2], strict=True):
            left = _add_hash(left, right, key_left, self._height)
            right = _add_hash(right, left, key_right, self._width)
        left *= self._width
        left += right
        return left


def _add_hash(
    side: NDArray[np.uint64], other: NDArray[np.uint64], key: np.uint64, modulus: np.uint64
) -> NDArray[np.uint64]:
    """(side + hash(other)) modulo `modulus`, for sides below `modulus` and a modulus of at most 2**31."""
    hashed = other + key
    hashed ^= hashed >> _30
    hashed *= _MULTIPLIER_1
    hashed ^= hashed >> _27
    hashed *= _MULTIPLIER_2
    # From 64 bits to a number below the modulus: the top 32 bits times the modulus, divided by 2**32. The finaliser's
    # last step, x ^= x >> 31, is left out: it would change only the lowest of these 32 bits.
    hashed >>= _32
    hashed *= modulus
    hashed >>= _32
    hashed += side
    # Subtract the modulus where the sum reached it: where it did not, the difference wraps around to a huge number.
    reduced: NDArray[np.uint64] = np.minimum(hashed, hashed - modulus)
    return reduced


def _round_keys(n: int, seed: int, epoch: int) -> tuple[np.uint64, ...]:
    """One 64-bit key per round. Written out with separators, so no two (n, seed, epoch) give the same text."""
    text = f"{n:x},{seed:x},{epoch:x}".encode()
    digest = hashlib.blake2b(text, digest_size=8 * _ROUNDS, person=b"dist_loader.perm").digest()
    return tuple(np.frombuffer(digest, dtype="<u8").astype(np.uint64))


def _as_int(name: str, value: object) -> int:
    """A Python int from an int or NumPy integer; a bool or a float here is a mistake, not a number."""
    if not isinstance(value, (bool, np.bool_)):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ConfigError(f"{name} must be an integer, got {value!r}")
