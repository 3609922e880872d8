"""Token sequences: what Keras gets of them, on any number of ranks, and what a training makes of that."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.errors import ConfigError, SampleError, TooManyBadSamples
from dist_loader.world import World

RNG = np.random.default_rng(3)
ALONE = World(rank=0, size=1, local_rank=0, local_size=1)
LENGTHS = [3, 0, 7, 1, 12, 5, 5, 2, 9, 4, 0, 6, 8, 1, 3, 11, 2, 10, 4, 6, 7, 1, 5]
TOKENS = [[100 * number + at + 1 for at in range(length)] for number, length in enumerate(LENGTHS)]
TAGS = [[token % 5 for token in tokens] for tokens in TOKENS]


def of(rank: int, size: int) -> World:
    return World(rank=rank, size=size, local_rank=rank, local_size=size)


@pytest.fixture
def make(threads):
    """Makes sequences, which are closed at the end of the test."""
    made = []

    def make(tokens=TOKENS, targets=TAGS, device_batch=4, world=ALONE, **options) -> dl.TokenSequence:
        if "strategy" in options:
            world = None
        made.append(dl.TokenSequence(tokens, targets, device_batch, 64, world=world, threads=2, **options))
        return made[-1]

    yield make
    for sequence in made:
        sequence.close()


def padded(sequences: list, numbers: list[int], length: int, cut: str = "end", maxlen: int = 10**9, value=0) -> list:
    """What a batch must be, in plain Python; what is longer than the batch (fill) is cut to it."""
    rows = [
        sequences[n]
        if len(sequences[n]) <= maxlen
        else {"end": sequences[n][:maxlen], "start": sequences[n][-maxlen:]}[cut]
        for n in numbers
    ]
    return [[*row, *[value] * (length - len(row))][:length] for row in rows]


# ------------------------------------------------------------------------------------------------------- its batches


@pytest.mark.parametrize("cut", ["end", "start"])
@pytest.mark.parametrize("maxlen", [None, 1, 6, 40])
@pytest.mark.parametrize("pad", ["longest", "maxlen"])
@pytest.mark.parametrize("buckets", [None, 2])
def test_batches_are_cut_and_padded(make, pad: str, maxlen: int | None, cut: str, buckets: int | None) -> None:
    if pad == "maxlen" and (maxlen is None or buckets):
        with pytest.raises(ConfigError, match='pad="maxlen" needs a maxlen'):
            make(pad=pad, maxlen=maxlen, buckets=buckets)
        return
    sequence = make(pad=pad, maxlen=maxlen, cut=cut, pad_value=-1, buckets=buckets)
    most = maxlen or max(LENGTHS)
    for epoch in (0, 3):
        sequence.epoch = epoch
        for step, (x, y, weights) in enumerate(sequence):
            numbers = sequence.numbers(epoch, step).tolist()
            real = numbers[: sequence.plan.real_samples(step)]
            length = most if pad == "maxlen" else max(1, *(min(LENGTHS[n], most) for n in real))
            assert x.dtype == y.dtype == np.int32
            assert x.tolist() == padded(TOKENS, numbers, length, cut, most, -1)
            assert y.tolist() == padded(TAGS, numbers, length, cut, most)
            mask = [[n < LENGTHS[number] for n in range(length)] for number in numbers]
            scale = len(numbers) / len(real)
            expected = [[scale * float(there) for there in row] for row in mask[: len(real)]]
            assert weights.dtype == np.float32
            assert weights[: len(real)] == pytest.approx(np.array(expected))
            assert (np.signbit(weights[len(real) :])).all()  # the fill
            assert not weights[len(real) :].any()


def test_lengths_are_rounded_up_to_a_multiple_but_never_beyond_the_longest(make) -> None:
    lengths = {x.shape[1] for x, *_ in make(multiple=8)}
    assert lengths == {8, 12}
    assert {x.shape[1] for x, *_ in make(multiple=8, maxlen=10)} == {8, 10}


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([None, 2]),
    st.sampled_from([None, 5]),
)
def test_ranks_have_the_parts_of_one_process(
    lengths: list[int], world_size: int, device_batch: int, buckets: int | None, maxlen: int | None
) -> None:
    """Cut to one length, that of the global batch, and every token of an epoch is there once."""
    tokens = [[20 * number + at + 1 for at in range(length)] for number, length in enumerate(lengths)]
    made = [
        dl.TokenSequence(tokens, tokens, batch, 99, world=world, threads=1, buckets=buckets, maxlen=maxlen)
        for world, batch in [(ALONE, device_batch * world_size)]
        + [(of(rank, world_size), device_batch) for rank in range(world_size)]
    ]
    seen: list[int] = []
    for batch, *parts in zip(*made, strict=True):
        for whole, *own in list(zip(batch, *parts, strict=False))[:2]:
            assert np.concatenate(own).tolist() == whole.tolist()
        if len(batch) == 3:
            counts = batch[2] > 0
            assert (np.concatenate([part[2] > 0 for part in parts]) == counts).all()
            fill = np.signbit(batch[2])
            assert (np.concatenate([np.signbit(part[2]) for part in parts]) == fill).all()
            seen += batch[0][counts].tolist()
    for sequence in made:
        sequence.close()
    assert sorted(seen) == sorted(token for one in tokens for token in one[:maxlen])


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", ">f4"])
@pytest.mark.parametrize("mapped", [True, False])
def test_tokens_are_looked_up_in_a_table(make, tmp_path: Path, dtype: str, mapped: bool) -> None:
    table = RNG.normal(size=(2400, 3)).astype(dtype)
    np.save(tmp_path / "table.npy", table)
    sequence = make(embedding=tmp_path / "table.npy" if mapped else table)
    for step, (x, y, _) in enumerate(sequence):
        assert x.dtype == (np.float16 if dtype == "float16" else np.float32)
        for row, number in enumerate(sequence.numbers(0, step).tolist()):
            length = min(LENGTHS[number], x.shape[1])
            assert (x[row, :length] == table[TOKENS[number][:length]].astype(x.dtype)).all()
            assert not x[row, length:].any()
        assert y.shape == x.shape[:2]


def test_targets_of_tokens_become_vectors(make) -> None:
    plain, vectors = make(), make(labels="one-hot", classes=5)
    for (_, y, weights), (_, one_hot, same) in zip(plain, vectors, strict=True):
        assert one_hot.dtype == np.float32
        assert one_hot.shape == (*y.shape, 5)
        there = (plain_rows := one_hot.sum(axis=-1)) > 0
        assert (one_hot.argmax(axis=-1)[there] == y[there]).all()
        assert (there == (weights > 0))[~np.signbit(weights)].all()
        assert set(np.unique(plain_rows)) <= {0, 1}
        assert (weights == same).all()


def test_targets_of_tokens_may_be_fractions_and_vectors(make) -> None:
    x, y, _ = make(targets=[[[t / 2, 1.0] for t in one] for one in TOKENS if one], tokens=[t for t in TOKENS if t])[0]
    assert y.dtype == np.float32
    assert (y[..., 0] == x / 2).all()
    assert ((y[..., 1] == 1) == (x > 0)).all()


def test_targets_of_samples(make, tmp_path: Path) -> None:
    labels = RNG.integers(0, 3, len(TOKENS))
    np.save(tmp_path / "labels.npy", labels)
    for given_ in (labels, labels.tolist(), tmp_path / "labels.npy"):
        sequence = make(targets=given_, remainder="drop")
        for step, (_, y) in enumerate(sequence):
            assert y.tolist() == labels[sequence.numbers(0, step)].tolist()
    one_hot = make(targets=labels, labels="one-hot", classes=3)
    assert (one_hot[0][1] == np.eye(3)[labels[one_hot.numbers(0, 0)]]).all()
    weighted = make(targets=labels, class_weight={1: 3.0}, remainder="drop")
    assert (weighted[0][2] == np.where(weighted[0][1] == 1, 3, 1)).all()


def test_weights_of_tokens(make) -> None:
    given_ = [[token % 3 for token in one] for one in TOKENS]
    own = np.arange(len(TOKENS)) + 1.0
    sequence = make(token_weight=given_, sample_weight=own, remainder="drop")
    for step, (_, _, weights) in enumerate(sequence):
        numbers = sequence.numbers(0, step)
        expected = np.array(padded(given_, numbers.tolist(), weights.shape[1])) * own[numbers, None]
        assert (weights == expected).all()
    assert len(make(token_weight=False, remainder="drop")[0]) == 2
    bad = [[float("nan")] * len(one) if at == 4 else one for at, one in enumerate(given_)]
    with pytest.raises(SampleError, match=r"sample 4, 'tokens\[4\]': weight 0 is nan, and must be 0 or more"):
        list(make(token_weight=bad))


@pytest.mark.parametrize("one_hot", [{}, {"labels": "one-hot", "classes": 3}])
def test_what_a_function_changes_is_padded_all_the_same(make, one_hot: dict) -> None:
    """A sample's row has space for the longest of all, and its target none."""

    def change(x, y, rng):
        assert x.shape == (12,)
        x[x > 0] += 5000
        return x, y

    labels = RNG.integers(0, 3, len(TOKENS))
    plain, changed = make(targets=labels, **one_hot), make(targets=labels, augment=change, **one_hot)
    for before, after in zip(plain, changed, strict=True):
        assert (after[0] == np.where(before[0] > 0, before[0] + 5000, 0)).all()
        assert (after[1] == before[1]).all()


def test_classes_have_given_shares_in_buckets(make) -> None:
    labels = np.arange(len(TOKENS)) % 3
    sequence = make(targets=labels, class_shares={0: 1, 2: 1}, epoch_samples=40, buckets=3)
    assert np.bincount(np.concatenate([y for _, y in sequence])).tolist() == [20, 0, 20]


def test_named_inputs_and_a_mask(make) -> None:
    x, y, _ = make(input_name="ids", mask_name="padding_mask", output_name="tags")[0]
    assert list(x) == ["ids", "padding_mask"]
    assert x["padding_mask"].dtype == bool
    assert (x["padding_mask"] == (x["ids"] > 0)).all()
    assert y["tags"].shape == x["ids"].shape


def test_sequences_that_are_all_empty(make) -> None:
    for x, y, weights in make([[], [], []], [[], [], []], 2):
        assert x.shape == y.shape == weights.shape == (2, 1)
        assert not np.stack([x, y, weights]).any()


def test_a_sequence_far_longer_than_the_others_is_worth_a_word(make) -> None:
    tokens = [*TOKENS, [1] * 1000]
    with pytest.warns(UserWarning, match=r"tokens\[23\] has 1000 tokens, the mean is 46: .* give maxlen"):
        make(tokens, None)
    make(tokens, None, maxlen=50)


# ------------------------------------------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad": "all"}, "pad must be one of longest, maxlen, not 'all'"),
        ({"cut": "both"}, "cut must be one of"),
        ({"labels": "two-hot"}, "labels must be one of"),
        ({"labels": "one-hot"}, 'labels="one-hot" needs classes'),
        ({"maxlen": 0}, "maxlen must be a whole number of at least 1"),
        ({"multiple": 0}, "multiple must be"),
        ({"mask_name": "mask"}, "give the first one an input_name"),
        ({"pad_value": 2**31}, "pad_value must be a whole number of 32 bits"),
        ({"pad_value": 1, "embedding": np.ones((3000, 2))}, "with an embedding, padding is zeros"),
        ({"embedding": np.ones(5)}, r"embedding must be a table of fractions, .* not float64 \(5,\)"),
        ({"embedding": "no.npy"}, "embedding: no file 'no.npy'"),
        ({"targets": TAGS[:-1]}, "targets has 22 sequences, and tokens 23"),
        ({"targets": [*TAGS[:-1], []]}, "sequence 22 has 0 values in targets, and 5 in tokens"),
        ({"targets": [1, 2]}, "targets must have one row for each of the 23 samples, and has 2"),
        ({"targets": [7] * 23, "classes": 7}, "targets must be whole numbers from 0 to 6"),
        ({"targets": None, "token_weight": True}, "token_weight is for targets of tokens"),
        ({"tokens": [[[1, 2]]] * 23}, r"tokens must be sequences of numbers, not of arrays of \(2,\)"),
        ({"class_weight": {1: 2.0}}, "class_weight is for samples with one integer label each"),
    ],
)
def test_values_that_cannot_work(make, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"embedding": np.ones((1500, 2), np.float32)},
            r"sample 15, 'tokens\[15\]': token 0 is 1501, and must be from 0 to 1499",
        ),
        ({"vocabulary": 1506}, "token 5 is 1506, and must be from 0 to 1505"),
        ({"vocabulary": 1506, "maxlen": 3, "cut": "start"}, "token 8 is 1509"),
        (
            {"tokens": (np.array([1, 2**31, 3]), [0, 1, 3]), "targets": None},
            "token 0 is 2147483648, and must be from -2147483648 to 2147483647",
        ),
        ({"classes": 4}, "target 3 is 4, and must be from 0 to 3"),
    ],
)
def test_numbers_out_of_range_are_bad_samples(make, options: dict, message: str) -> None:
    sequence = make(shuffle=False, **options)
    with pytest.raises(SampleError, match=message):
        list(sequence)


@pytest.mark.parametrize("on_bad", ["replace", "weight0"])
def test_bad_samples_are_noted_and_another_takes_their_place(make, tmp_path: Path, on_bad: str) -> None:
    tokens = [[5000] if number in (4, 9) else one for number, one in enumerate(TOKENS)]
    tags = [[0] if number in (4, 9) else one for number, one in enumerate(TAGS)]
    file = tmp_path / "bad.jsonl"
    sequence = make(tokens, tags, vocabulary=2400, on_bad=on_bad, bad_file=file)
    seen: set[int] = set()
    for x, _, weights in sequence:
        seen |= set(x[weights > 0].tolist())
    assert 5000 not in seen
    assert seen >= {token for number, one in enumerate(TOKENS) if number not in (4, 9) for token in one}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["path"] for line in lines) == ["tokens[4]", "tokens[9]"]
    with pytest.raises(TooManyBadSamples):
        list(make(tokens, tags, vocabulary=2400, on_bad=on_bad, bad_budget=1))


def test_other_data_have_another_fingerprint(make) -> None:
    table = np.ones((3000, 2), np.float32)
    others = [
        {"tokens": [*TOKENS[1:], TOKENS[0]], "targets": None},
        {"tokens": TOKENS, "targets": None},
        {"targets": [[tag + 1 for tag in one] for one in TAGS]},
        {},
        {"token_weight": TAGS},
        {"embedding": table},
        {"embedding": table * 2},
        {"targets": RNG.integers(0, 3, len(TOKENS))},
    ]
    assert len({make(**other).samples.fingerprint for other in others}) == len(others)
    assert make().samples.fingerprint == make().samples.fingerprint
    recipes = [{}, {"maxlen": 5}, {"maxlen": 5, "cut": "start"}, {"multiple": 2}, {"pad_value": 1}]
    assert len({make(**recipe).recipe for recipe in recipes}) == len(recipes)


# ----------------------------------------------------------------------------------------------------------- training


def tagger(reduction: str = "mean_with_sample_weight", mask: bool = False, recurrent: bool = False) -> keras.Model:
    keras.utils.clear_session()  # for names as in a process of its own
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(2400, 4, mask_zero=mask),
            keras.layers.LSTM(3, return_sequences=True) if recurrent else keras.layers.Dense(3, "tanh"),
            keras.layers.Dense(5),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


class _Break(keras.callbacks.Callback):
    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        self.left -= 1
        if not self.left:
            raise RuntimeError("broken off")


def test_a_training_that_was_broken_off_goes_on_to_the_bit(make, tmp_path: Path, capsys) -> None:
    strategy = dl.init("single")

    def train(folder: Path, **more) -> keras.Model:
        model = tagger(recurrent=True)
        train = make(strategy=strategy, buckets=2, maxlen=8)
        strategy.fit(model, train, epochs=2, checkpoint_dir=folder, checkpoint_every=1, **more)
        return model

    expected = train(tmp_path / "whole").get_weights()
    with pytest.raises(RuntimeError, match="broken off"):
        train(tmp_path / "broken", callbacks=[_Break(after=10)])
    capsys.readouterr()
    found = train(tmp_path / "broken").get_weights()
    assert "going on from the checkpoint at epoch 1, step " in capsys.readouterr().out
    assert all(ours.tobytes() == theirs.tobytes() for ours, theirs in zip(found, expected, strict=True))
    strategy_of_plan = make(strategy=strategy, maxlen=8)
    with pytest.raises(ConfigError, match="the checkpoint in .* has order buckets of 2 .* this training of the plan"):
        strategy.fit(tagger(), strategy_of_plan, epochs=2, checkpoint_dir=tmp_path / "broken")


@pytest.mark.parametrize(
    ("reduction", "mask", "wanted"),
    [
        ("mean_with_sample_weight", False, "tokens"),
        ("sum_over_batch_size", True, "tokens"),
        ("sum_over_batch_size", False, "batch x time"),
    ],
)
def test_what_a_loss_is_divided_by(make, reduction: str, mask: bool, wanted: str) -> None:
    """As docs/tokens.md says."""
    strategy = dl.init("single")
    model = tagger(reduction, mask)
    valid = make(strategy=strategy, device_batch=23, shuffle=False)
    logits = keras.ops.convert_to_numpy(model(valid[0][0])).astype(np.float64)
    probable = np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, valid[0][1][..., None], -1)[..., 0]
    counted = valid[0][0] > 0
    expected = probable[counted].sum() / (counted.sum() if wanted == "tokens" else counted.size)
    for device_batch in (23, 32):  # without fill, and with
        sequence = make(strategy=strategy, device_batch=device_batch, shuffle=False)
        assert strategy.evaluate(model, sequence)["loss"] == pytest.approx(expected, rel=1e-5)


def test_slices_give_the_weights_of_the_whole_batch(make) -> None:
    strategy = dl.init("single")
    found = []
    for options in ({"device_batch": 8}, {"device_batch": 4, "global_batch": 8}):
        model = tagger()
        strategy.fit(model, make(strategy=strategy, **options), epochs=1, verbose=0)
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_outputs_for_tokens_come_in_index_order(make) -> None:
    strategy = dl.init("single")
    model = tagger()
    outputs = strategy.predict(model, make(strategy=strategy, targets=None, buckets=2))
    assert outputs.shape == (23, 12, 5)
    for number in (0, 4, 22):
        expected = keras.ops.convert_to_numpy(model(np.array([TOKENS[number]])))[0]
        assert outputs[number, : LENGTHS[number]] == pytest.approx(expected, abs=1e-5)


def test_empty_sequences_make_no_nan(make) -> None:
    strategy = dl.init("single")
    tokens = [[], [], [5, 6], []]
    model = tagger()
    history = strategy.fit(model, make(tokens, tokens_tags(tokens), 2, strategy=strategy), epochs=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert all(np.isfinite(weights).all() for weights in model.get_weights())


def tokens_tags(tokens: list) -> list:
    return [[token % 5 for token in one] for one in tokens]
