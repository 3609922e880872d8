"""A reader that goes on after a bad sample, with another one in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dist_loader.arrays import by_name, rows
from dist_loader.bad_samples.policy import stand_ins
from dist_loader.errors import SampleError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from dist_loader.bad_samples.register import BadSamples
    from dist_loader.readers import Reader


class TolerantReader:
    """Reads what another reader reads. Where it cannot, the policy says what is there instead.

    * `"raise"`: nothing; the error is raised.
    * `"replace"`: another sample, found by `stand_ins`.
    * `"weight0"`: the same other sample, or zeros if there is none, and a mark that it does not count. (So that batch
      normalisation, which knows no weights, sees pictures.)

    Args:
        reader: what reads.
        bad: where bad samples are counted.
    """

    def __init__(self, reader: Reader, bad: BadSamples) -> None:
        self._reader = reader
        self._bad = bad

    @property
    def shape(self) -> tuple[int, ...] | Mapping[str, tuple[int, ...]]:
        """Shape of one sample."""
        return self._reader.shape

    @property
    def dtype(self) -> np.dtype[Any] | Mapping[str, np.dtype[Any]]:
        """Type of one sample's elements."""
        return self._reader.dtype

    def name(self, number: int) -> str:
        """What a person would call a sample."""
        return self._reader.name(number)

    def read(self, numbers: npt.NDArray[np.int64], epoch: int, out: Any) -> float:
        """Read samples into `out`; seconds spent fetching what is stored.

        `numbers` is changed to what is really there: n for sample n, and ~n (which is negative) for pixels of sample n
        that do not count.

        Raises:
            SampleError: a sample could not be read and the policy is to raise, or none was found to take its place.
            TooManyBadSamples: the budget is spent.
        """
        at, fetching = 0, 0.0
        while at < len(numbers):
            try:
                return fetching + (self._reader.read(numbers[at:], epoch, rows(out, slice(at, None))) or 0.0)
            except SampleError as error:
                self._bad.note(error, epoch)
                if self._bad.on_bad == "raise":
                    raise
                at += numbers[at:].tolist().index(error.sample)  # the samples before it have been read
                place = slice(at, at + 1)
                numbers[at], seconds = self._stand_in(error, numbers[place].copy(), epoch, rows(out, place))
                fetching += seconds
                at += 1
        return fetching

    def _stand_in(self, first: SampleError, one: npt.NDArray[np.int64], epoch: int, out: Any) -> tuple[int, float]:
        """What took a sample's place, as a number to be written in `numbers`, and seconds spent fetching it."""
        bad, counts = self._bad, self._bad.on_bad == "replace"
        tried = 0
        for other in stand_ins(first.sample, epoch, bad.seed, len(bad.samples)):
            tried += 1
            one[0] = other
            try:
                seconds = self._reader.read(one, epoch, out) or 0.0
            except SampleError as error:
                bad.note(error, epoch)
            else:
                return (other if counts else ~other), seconds
        if counts:
            reason = f"{first.reason}; and of {tried} samples tried in its place none could be read"
            raise SampleError(first.sample, first.path, reason) from first
        for array in by_name(out).values():
            array[...] = 0
        return ~first.sample, 0.0
