"""Sequences of tokens of different lengths, cut and padded to batches."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, get_args

import numpy as np

from dist_loader.errors import ConfigError
from dist_loader.ragged import ragged_of
from dist_loader.readers.tokens import MASK, TOKENS, Cut, TokenReader
from dist_loader.sequence.batch_sequence import BatchSequence
from dist_loader.sequence.buckets import BucketOrder
from dist_loader.sequence.columns import Labels, digest_of
from dist_loader.sequence.data import Data, Samples, Structure, Varying
from dist_loader.sequence.token_columns import room_for, targets_for, token_column, weights_for
from dist_loader.sizes import at_least_one

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from dist_loader.plan import Plan
    from dist_loader.sequence.data import Numbers
    from dist_loader.sequence.options import Options
    from dist_loader.sequence.order import Order

Pad = Literal["longest", "maxlen"]
Path: TypeAlias = "str | os.PathLike[str]"
Tokens: TypeAlias = (
    "Path | tuple[Path | npt.ArrayLike, Path | npt.ArrayLike] | npt.NDArray[Any] | Sequence[npt.ArrayLike]"
)


class TokenSequence(BatchSequence):
    """Sequences of tokens, batch by batch, in plan order, for one rank (docs/tokens.md).

    `sequence[step]` is `(x, y)`, `(x, y, weights)` or `(x,)` (see `BatchSequence`), with time = `maxlen`, or as much
    as the longest sequence of the global batch needs:

    * x: the tokens, int32, shape (batch, time); or their rows in `embedding`, shape (batch, time, width), float16 if
      the table is, else float32;
    * y: targets of tokens, shape (batch, time, ...), int32 or float32, or one-hot (batch, time, classes), float32;
      or targets of samples, shape (batch, ...);
    * weights: float32, shape (batch, time), or (batch,) without weights of tokens.

    Args:
        tokens: the path of a folder that `save_tokens` made; (values, offsets), each an array or the path of a `.npy`
            file; a list of sequences; or an array with one in each row. Whole numbers. Files are memory-mapped.
        targets: of tokens, in the same ways (but for the last) and of the same lengths; or of samples: an array, a list
            of numbers or a `.npy` file with a row for each; or None.
        device_batch: samples that one device computes at once, or "auto".
        host_batch: samples held in memory by this process: a number of samples, or a size such as "4GiB". Each takes as
            much as one of `maxlen` tokens.
        maxlen: tokens of a sample at most; None: as many as the longest has.
        pad: "longest": to the longest of the global batch; "maxlen": to `maxlen`.
        multiple: "longest" is rounded up to a multiple of this, so that there are fewer different lengths.
        cut: which part of a sequence longer than `maxlen` is left out, "end" or "start".
        pad_value: the token after the last one. Targets and weights are 0 there, rows of `embedding` zeros.
        buckets: so many global batches are sorted by length at a time (see `BucketOrder`); None: none are.
        embedding: a table, shape (vocabulary, width), or the path of a `.npy` file that holds one: tokens are looked up
            in it by the threads that read. None: that is left to the model.
        vocabulary: tokens must be below it, and 0 or more; those of an `embedding` must be anyway.
        labels: "integer" or "one-hot": what becomes of targets that are whole numbers.
        classes: they must be below it, and 0 or more; length of the one-hot vectors.
        token_weight: weights of tokens, of 0 or more, in the same ways as `tokens`; True: 1 for tokens and 0 for
            padding; False: none. By default, True if the targets are of tokens.
        input_name: if given, Keras gets {input_name: x}, for models whose inputs have names.
        output_name: if given, Keras gets {output_name: y}.
        mask_name: with `input_name`: the name of another input, bool, shape (batch, time), True where tokens are.
        **options: strategy, world, seed, shuffle, remainder, global_batch, sample_weight, class_weight, threads,
            timeout, on_bad, bad_budget, bad_file, host_passes, class_shares, epoch_samples, augment, augment_batch:
            see `BatchSequence`.

    Raises:
        ConfigError: a value that cannot work, with the value and what to do.
    """

    def __init__(
        self,
        tokens: Tokens,
        targets: Any,
        device_batch: int | Literal["auto"],
        host_batch: int | str = "1GiB",
        *,
        maxlen: int | None = None,
        pad: Pad = "longest",
        multiple: int = 1,
        cut: Cut = "end",
        pad_value: int = 0,
        buckets: int | None = None,
        embedding: Path | npt.ArrayLike | None = None,
        vocabulary: int | None = None,
        labels: Labels = "integer",
        classes: int | None = None,
        token_weight: Tokens | bool | None = None,
        input_name: str | None = None,
        output_name: str | None = None,
        mask_name: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        for name, value, known in (("pad", pad, Pad), ("cut", cut, Cut), ("labels", labels, Labels)):
            if value not in get_args(known):
                raise ConfigError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        if pad == "maxlen" and (maxlen is None or buckets is not None):
            raise ConfigError('pad="maxlen" needs a maxlen; and buckets save nothing then, leave them out')
        if mask_name is not None and input_name is None:
            raise ConfigError("mask_name is the name of a second input; give the first one an input_name, too")
        at_least_one("multiple", multiple)
        sequences = ragged_of(tokens, "tokens", "iu")
        room = room_for(sequences, maxlen, fixed=pad == "maxlen")
        column = token_column(sequences, embedding, vocabulary, pad_value)
        found = targets_for(targets, sequences, labels, classes)
        weight, weights = weights_for(token_weight, sequences, of_tokens=bool(found.columns))
        reader = TokenReader(
            room, cut, {TOKENS: column, **found.columns, **weights}, mask=weight == MASK or mask_name is not None
        )

        def length(numbers: Numbers) -> int:
            longest = int(sequences.lengths(numbers).max(initial=1))
            return min(-(-longest // multiple) * multiple, room)

        def in_buckets(plan: Plan, inner: Order | None) -> Order:
            size = at_least_one("buckets", buckets)  # type: ignore[arg-type]  # None was asked for before
            lengths = lambda numbers: np.minimum(sequences.lengths(numbers), room)  # noqa: E731
            return BucketOrder(plan, inner, size, lengths, f"lengths up to {room}")

        x: Any = TOKENS if input_name is None else {input_name: TOKENS}
        if mask_name is not None:
            x[mask_name] = MASK
        named = output_name is not None and found.y is not None
        data = Data(
            Samples(
                len(sequences),
                lambda: digest_of((reader.content, found.of_samples)),
                found.labels,
            ),
            reader,
            Structure(x, {output_name: found.y} if named else found.y, weight),
            recipe=f"{reader.recipe}, {pad} {multiple}",
            varying=Varying(reader.shape.keys(), length) if pad == "longest" else None,
            order=None if buckets is None else in_buckets,
        )
        super().__init__(data, device_batch, host_batch, **options)
