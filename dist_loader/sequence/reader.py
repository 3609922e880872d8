"""Samples of a user's own kind, by a reader that the user writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Unpack

from dist_loader.arrays import ONLY, specification
from dist_loader.errors import ConfigError
from dist_loader.readers.checked import CheckedReader
from dist_loader.sequence.batch_sequence import BatchSequence
from dist_loader.sequence.columns import digest_of, integer_labels, mapped_columns
from dist_loader.sequence.data import Data, Samples, Structure

if TYPE_CHECKING:
    from dist_loader.readers import SampleReader
    from dist_loader.sequence.options import Options


class ReaderSequence(BatchSequence):
    """What a reader reads, batch by batch, in plan order, for one rank (docs/readers.md).

    `sequence[step]` is `(x, y)`, `(x, y, weights)` or `(x,)` (see `BatchSequence`).

    Args:
        reader: numbers of samples in, arrays into given memory (see `dist_loader.SampleReader`).
        device_batch: samples that one device computes at once, or "auto".
        host_batch: samples held in memory by this process: a number of samples, or a size such as "4GiB".
        x: the inputs: a name of one of the reader's arrays, or a dictionary or tuple of names. By default, all of them
            that are not named in y or weight: the array itself if it is the only one, else a dictionary by name.
        y: the targets: names as in x, or arrays with a row for each sample, (samples, ...), such as labels; or a
            dictionary or tuple of both. None: there are none.
        weight: the name of the array with the weights of a sample's parts, such as its tokens, shape (n, ...).
        recipe: a text that says how samples are made, for ranks to compare.
        **options: strategy, world, seed, shuffle, remainder, global_batch, sample_weight, class_weight, threads,
            timeout, on_bad, bad_budget, bad_file, host_passes, class_shares, epoch_samples, augment, augment_batch:
            see `BatchSequence`.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do; a reader that does not keep the protocol.
    """

    def __init__(
        self,
        reader: SampleReader,
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        *,
        x: Any = None,
        y: Any = None,
        weight: str | None = None,
        recipe: str = "",
        **options: Unpack[Options],
    ) -> None:
        checked = CheckedReader(reader)
        arrays = specification(checked)
        known = arrays.__contains__
        y = mapped_columns(y, checked.samples, "y", known) if y is not None else None
        if weight is not None and not known(weight):
            raise ConfigError(f"weight names {weight!r}, which the reader does not have; it has {', '.join(arrays)}")
        if x is None:
            x = _rest(list(arrays), y, weight)
        x = mapped_columns(x, checked.samples, "x", known)
        samples = Samples(checked.samples, lambda: f"{reader.fingerprint} {digest_of((x, y))}", integer_labels(y))
        made = [
            recipe or type(reader).__name__,
            *(f"{name} {shape} {dtype}" for name, (shape, dtype) in arrays.items()),
        ]
        super().__init__(
            Data(samples, checked, Structure(x, y, weight), recipe=", ".join(made)), device_batch, host_batch, **options
        )


def _rest(names: list[str], y: Any, weight: str | None) -> Any:
    """The arrays that are no targets and no weights."""
    taken = _names_in(y) | {weight}
    left = [name for name in names if name not in taken]
    if not left:
        raise ConfigError("all of the reader's arrays are targets or weights; name those that are inputs in x")
    return left[0] if left == [ONLY] or len(left) == 1 else {name: name for name in left}


def _names_in(structure: Any) -> set[str]:
    if isinstance(structure, str):
        return {structure}
    parts = structure.values() if isinstance(structure, dict) else structure if isinstance(structure, tuple) else ()
    return set().union(*map(_names_in, parts))
