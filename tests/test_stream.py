"""Streams of unknown length: what each rank's batches hold, and what all ranks do alike."""

import errno
import itertools
import json
import threading
import time
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dist_loader as dl
from dist_loader.world import World


class Peers:
    """Ranks that are threads of this process, and speak to each other."""

    def __init__(self, size):
        self.size = size
        self._rows = [None] * size
        self._meet = threading.Barrier(size)

    def gather(self, rank, array):
        self._rows[rank] = array
        self._meet.wait(20)
        rows = np.concatenate(self._rows)
        self._meet.wait(20)
        return rows


class Rank:
    """What a strategy is to a sequence."""

    replicas = 1

    def __init__(self, peers, rank):
        self.world = World(rank=rank, size=peers.size, local_rank=rank, local_size=peers.size)
        self.devices = self
        self._peers = peers

    def gatherer(self, name):
        return lambda array: self._peers.gather(self.world.rank, array)


def on_ranks(size, make, work=list, **how):
    """What a function of a sequence returns, or raises, on each of so many ranks."""
    peers, found = Peers(size), [None] * size

    def one(rank):
        sequence = dl.StreamSequence(make, strategy=Rank(peers, rank), **{"threads": 2, "timeout": 20, **how})
        try:
            found[rank] = work(sequence)
        except Exception as error:
            found[rank] = error
        finally:
            sequence.close()

    running = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    return found


def numbers(count, start=0):
    for number in range(start, start + count):
        yield np.full(2, number, np.float32), number


def real(batches):
    """The items of one rank's batches that count."""
    return [int(y) for _, ys, weights in batches for y, weight in zip(ys, weights, strict=True) if weight > 0]


# ------------------------------------------------------------------------------------------------ which items are whose


@settings(max_examples=60)
@given(items=st.integers(1, 60), size=st.integers(1, 5), batch=st.integers(1, 5), held=st.integers(1, 4))
def test_every_item_comes_once_in_the_same_steps_whatever_the_world(items, size, batch, held):
    found = on_ranks(size, lambda: numbers(items), device_batch=batch, host_batch=held * batch)
    steps = -(-items // (size * batch))
    assert [len(batches) for batches in found] == [steps] * size
    for step in range(steps):
        of_all = list(itertools.chain.from_iterable(real(batches[step : step + 1]) for batches in found))
        assert of_all == list(range(items))[step * size * batch : (step + 1) * size * batch]
    for batches in found:
        for x, y, weights in batches:
            assert (x == y[:, None]).all()
            count = np.count_nonzero(weights)
            assert np.allclose(weights[:count], batch / max(count, 1))
            assert np.signbit(weights[count:]).all()


@settings(max_examples=60)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4), batch=st.integers(1, 4), drop=st.booleans())
def test_the_shortest_stream_ends_the_epoch_on_all_ranks(lengths, batch, drop):
    found = on_ranks(
        len(lengths),
        lambda rank, world_size: numbers(lengths[rank], 100 * rank),
        device_batch=batch,
        remainder="drop" if drop else "weight",
    )
    whole = min(lengths) // batch
    if drop and not whole:
        assert all('remainder="drop" leaves no step' in str(error) for error in found)
        return
    more = not drop and any(length > whole * batch for length in lengths)
    for rank, batches in enumerate(found):
        assert len(batches) == whole + more
        trained = min(lengths[rank], (whole + more) * batch)
        assert real(batches) == list(range(100 * rank, 100 * rank + trained))


@settings(max_examples=40)
@given(size=st.integers(1, 3), batch=st.integers(1, 4), steps=st.integers(1, 4), epochs=st.integers(1, 4))
def test_epochs_cut_out_of_one_stream_follow_each_other_without_a_gap(size, batch, steps, epochs):
    found = on_ranks(
        size,
        itertools.count,
        lambda sequence: [list(sequence) for _ in range(epochs)],
        device_batch=batch,
        steps_per_epoch=steps,
        map=lambda number: (np.float32(number), number),
    )
    for epoch in range(epochs):
        items = Counter(itertools.chain.from_iterable(real(rank[epoch]) for rank in found))
        share = size * batch * steps
        assert items == Counter(range(epoch * share, (epoch + 1) * share))


@pytest.mark.parametrize("start", [0, 1, 2, 5, 6])
def test_a_pass_may_begin_in_the_middle_of_an_epoch(start):
    mapped = []

    def note(item):
        mapped.append(item[1])
        return item

    def rest(sequence):
        sequence.start_at(3, start)
        return list(sequence)

    (batches,) = on_ranks(1, lambda epoch: numbers(22, 100 * epoch), rest, device_batch=4, map=note)
    assert real(batches) == list(range(300, 322))[4 * start :]
    assert Counter(mapped) == Counter({300, *real(batches)})  # the first one shows what all are like


def test_map_is_applied_to_each_item_of_this_rank_once_and_in_several_threads():
    mapped, used = Counter(), set()
    both = threading.Barrier(2)

    def note(item):
        if item[1] in (5, 6):
            both.wait(20)  # neither goes on before the other has come
        mapped[item[1]] += 1
        used.add(threading.current_thread())
        return item

    (batches,) = on_ranks(1, lambda: numbers(50), device_batch=8, map=note, threads=4)
    assert mapped == Counter(range(50)) == Counter(real(batches))
    assert real(batches) == list(range(50))
    assert len(used) > 1


@pytest.mark.parametrize("lengths", [[7, 1, 12, 3], [23], [1] * 23])
def test_whole_batches_are_taken_apart(lengths):
    def batches():
        items = list(numbers(23))
        for length in lengths:
            some, items = items[:length], items[length:]
            yield np.stack([x for x, _ in some]), {"a": np.array([y for _, y in some])}

    (found,) = on_ranks(1, batches, device_batch=4, batched=True)
    assert real([(x, y["a"], weights) for x, y, weights in found]) == list(range(23))


def test_structures_weights_and_types_stay_as_they_are():
    def items():
        for number in range(6):
            yield {"a": np.uint8(number), "b": (np.zeros((2, 3)), 1.5)}, np.int16(number), 2.0 * number

    (found,) = on_ranks(1, items, device_batch=4)
    x, y, weights = found[0]
    assert (x["a"].dtype, x["b"][0].shape, x["b"][1].dtype, y.dtype) == (np.uint8, (4, 2, 3), np.float32, np.int16)
    assert weights.tolist() == [0, 2, 4, 6]
    assert found[1][2].tolist() == [16, 20, 0, 0]  # twice the items' own, for half of the batch is fill


def test_items_without_targets_come_alone():
    (found,) = on_ranks(1, lambda: iter([[1, 2], [3, 4], [5, 6]]), device_batch=2)
    assert [x.tolist() for (x,) in found] == [[[1, 2], [3, 4]], [[5, 6], [1, 2]]]


# ---------------------------------------------------------------------------------------------------- what goes wrong


def endings(found, kind):
    assert all(isinstance(error, kind) for error in found), found
    assert len({str(error) for error in found}) == 1
    return str(found[0])


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("where", ["draw", "map"])
def test_an_error_of_the_users_ends_the_epoch_on_all_ranks_at_the_same_step(size, where):
    seen = [[] for _ in range(size)]

    def items():
        for number in range(40):
            if where == "draw" and number == 25:
                raise OSError("the disk is gone")
            yield number, number

    def refuse(item):
        if where == "map" and item[0] == 25:
            raise OSError("the disk is gone")
        return item

    def work(sequence):
        for batch in sequence:
            seen[sequence.world.rank].append(real([(*batch,)]))

    found = on_ranks(size, items, work, device_batch=2, map=refuse)
    text = endings(found, dl.StreamError)
    assert "item 25 of the stream: OSError: the disk is gone" in text
    assert [len(batches) for batches in seen] == [25 // (2 * size)] * size
    assert any("refuse" in note or "items" in note for error in found for note in getattr(error, "__notes__", []))


def test_streams_that_differ_between_the_ranks_are_refused():
    def shuffled():
        yield from np.random.default_rng().permutation(100)

    assert "make the streams alike" in endings(on_ranks(2, shuffled, device_batch=2), dl.ConfigError)


def test_items_of_other_shapes_on_one_rank_are_refused_with_both():
    text = endings(
        on_ranks(2, lambda rank: iter([np.zeros(3 + rank)]), device_batch=2),
        dl.ConfigError,
    )
    assert "x float64(4,)" in text
    assert "x float64(3,)" in text


@pytest.mark.parametrize(
    ("odd", "text"),
    [
        ((np.zeros(3), 1), "x is float64(3,), and was float64(2,) in the first item"),
        ((np.zeros(2, np.float32), 1), "x is float32(2,), and was float64(2,)"),
        ((np.zeros(2),), "it has 1 parts, and the first item had 2"),
        (({"a": np.zeros(2)}, 1), "x holds no numbers but dict"),
        ((np.zeros(2), "cat"), "y holds no numbers but str"),
        ((np.zeros(2), 1, -1.0), "it has 3 parts"),
    ],
)
def test_an_item_unlike_the_first_is_named(odd, text):
    items = [(np.zeros(2), 1)] * 5 + [odd]
    (error,) = on_ranks(1, items, device_batch=2)
    assert isinstance(error, dl.StreamError)
    assert "item 5 of the stream" in str(error)
    assert text in str(error)


def test_an_empty_stream_is_an_error_on_all_ranks():
    assert "the stream has no items in epoch 0" in endings(on_ranks(3, list, device_batch=2), dl.ConfigError)
    text = endings(on_ranks(3, lambda rank: range(rank), device_batch=2), dl.ConfigError)
    assert "rank 0: its stream has no items" in text


def test_a_stream_that_blocks_on_one_rank_is_an_error_on_all_that_names_it():
    def blocks(rank):
        yield from range(5)
        time.sleep(2 * rank)

    found = on_ranks(2, blocks, device_batch=2, timeout=0.5)
    for error in found:
        assert isinstance(error, dl.ReadTimeout | dl.StreamError)
        assert "rank 1: nothing within 0.5 s: still waiting for item 5 of the stream" in str(error)


def test_a_generator_serves_one_epoch_and_then_says_what_to_do():
    def twice(sequence):
        first = list(sequence)
        try:
            list(sequence)
        except dl.ConfigError as error:
            return first, str(error)

    ((first, error),) = on_ranks(1, numbers(7), twice, device_batch=2)
    assert real(first) == list(range(7))
    assert "used up before epoch 1; give the function that makes it" in error


def test_several_ranks_without_a_strategy_are_refused():
    with pytest.raises(dl.ConfigError, match="must agree"):
        dl.StreamSequence(list, 2, world=World(rank=0, size=2, local_rank=0, local_size=2))


@pytest.mark.parametrize(
    ("make", "how", "text"),
    [
        (7, {}, "make must be a function"),
        (lambda wanted: [], {}, "it wants 'wanted'"),
        (lambda epoch: [], {"steps_per_epoch": 2}, "leave out steps_per_epoch"),
        (list, {"global_batch": 5}, "multiple of 2"),
        (list, {"remainder": "wrap"}, "weight, drop"),
        (list, {"device_batch": "auto"}, "device_batch"),
        (list, {"steps_per_epoch": 0}, "steps_per_epoch"),
    ],
)
def test_what_cannot_work_is_refused_at_once(make, how, text):
    with pytest.raises(dl.ConfigError, match=text):
        dl.StreamSequence(
            make, **{"device_batch": 2, "world": World(rank=0, size=1, local_rank=0, local_size=1), **how}
        )


# ---------------------------------------------------------------------------------------------------------- bad items


def refusing(bad, error=ValueError, text="no such color"):
    def refuse(item):
        if int(item[1]) in bad:
            raise error(text)
        return item

    return refuse


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


@settings(max_examples=60)
@given(
    items=st.integers(1, 40),
    size=st.integers(1, 4),
    batch=st.integers(1, 5),
    bad=st.sets(st.integers(0, 39)) | st.integers(1, 39).map(lambda first: set(range(first))),
)
def test_weight0_keeps_the_steps_and_the_mean_of_the_others_exact(items, size, batch, bad):
    bad &= set(range(items))
    how = {"device_batch": batch, "on_bad": "weight0", "bad_budget": 40, "map": refusing(bad)}
    found = on_ranks(size, lambda: numbers(items), **how)
    if len(bad) == items:
        assert f"the stream has {items} items in epoch 0, and map raises for all" in endings(found, dl.StreamError)
        return
    steps = -(-items // (size * batch))
    assert [len(batches) for batches in found] == [steps] * size
    for step in range(steps):
        of_all = list(itertools.chain.from_iterable(real(batches[step : step + 1]) for batches in found))
        drawn = range(items)[step * size * batch : (step + 1) * size * batch]
        assert of_all == [item for item in drawn if item not in bad]
        for rank, batches in enumerate(found):
            x, y, weights = batches[step]
            mine = drawn[rank * batch : (rank + 1) * batch]
            good = np.array([item not in bad for item in mine] + [False] * (batch - len(mine)))
            assert np.allclose(weights[good], batch / max(good.sum(), 1))
            assert (np.signbit(weights) == ~good).all()
            assert not weights[~good].any()
            assert (x == y[:, None]).all()
            assert not set(y.tolist()) & bad
            if good.any():
                assert set(y[: len(mine)].tolist()) <= set(mine)  # a bad row shows another item of the batch


@pytest.mark.parametrize("size", [1, 2])
def test_one_more_bad_item_than_the_budget_ends_the_job_on_all_ranks(size, tmp_path):
    file = tmp_path / "bad.jsonl"
    how = {"map": refusing({5, 7, 12}), "on_bad": "weight0", "bad_file": file, "threads": 1}
    found = on_ranks(size, lambda: numbers(40), device_batch=2, bad_budget=2, **how)
    assert len({str(error) for error in found}) == 1
    mine = [error for error in found if isinstance(error, dl.TooManyBadSamples)]
    assert len(mine) == 1
    assert "3 samples cannot be read, and bad_budget allows 2" in str(mine[0])
    last = (12,) if size == 1 else (5, 7, 12)  # both ranks count, and may come to theirs in any order
    assert any(f"'item {item} of the stream" in str(mine[0]) for item in last)
    assert "ValueError: no such color" in str(mine[0])
    assert str(file) in str(mine[0])
    allowed = on_ranks(size, lambda: numbers(40), device_batch=2, **{**how, "bad_file": None}, bad_budget=3)
    assert sum(len(real(batches)) for batches in allowed) == 37


def test_sixteen_items_may_be_bad_if_nothing_else_is_said():
    for count, kinds in ((16, [list, list]), (17, [dl.TooManyBadSamples, dl.StreamError])):  # told by rank 0
        how = {"map": refusing(range(count)), "on_bad": "weight0"}
        found = on_ranks(2, lambda: numbers(40), device_batch=2, **how)
        assert [type(batches) for batches in found] == kinds


def test_every_bad_item_is_one_line_whatever_rank_epoch_or_run_meets_it(tmp_path):
    file = tmp_path / "run" / "bad.jsonl"
    how = {"map": refusing({0, 7, 13}), "on_bad": "weight0", "bad_file": file}

    def twice(sequence):
        return [list(sequence), list(sequence), len(sequence.bad_samples.marks())]

    counts = [found[-1] for found in on_ranks(2, lambda: numbers(20), twice, device_batch=3, **how)]
    assert counts == [3, 3]
    found = sorted(lines(file), key=lambda line: line["sample"])
    assert [(line["sample"], line["epoch"], line["label"]) for line in found] == [(at, 0, None) for at in (0, 7, 13)]
    assert {line["reason"] for line in found} == {"ValueError: no such color"}
    assert [line["rank"] for line in found[1:]] == [0, 0]
    assert all(line["path"].startswith(f"item {line['sample']} of the stream ") for line in found)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda epoch: numbers(8), ["epoch 0", "epoch 1"]),
        (lambda rank: numbers(4), ["rank 0 of 2", "rank 1 of 2"]),
        (lambda epoch, rank: numbers(4), [f"epoch {e}, rank {r} of 2" for e in range(2) for r in range(2)]),
    ],
)
def test_items_of_streams_that_differ_have_names_that_do(make, names, tmp_path):
    how = {"map": refusing({2}), "on_bad": "weight0", "bad_file": tmp_path / "bad.jsonl"}
    on_ranks(2, make, lambda sequence: [list(sequence), list(sequence)], device_batch=4, **how)
    found = sorted(line["path"] for line in lines(tmp_path / "bad.jsonl"))
    assert len(found) == len(names)
    for path, name in zip(found, names, strict=True):
        assert path.endswith(f", {name})")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MemoryError, "item 5 of the stream: MemoryError"),
        (lambda text: OSError(errno.EMFILE, text), "item 5 of the stream: OSError: .*no such color"),
        (dl.ConfigError, "no such color"),
        (KeyboardInterrupt, "item 5 of the stream: KeyboardInterrupt"),
    ],
)
def test_what_is_no_fault_of_an_item_ends_the_job(error, text):
    how = {"map": refusing({5}, error), "on_bad": "weight0"}
    found = on_ranks(2, lambda: numbers(20), device_batch=2, **how)
    assert len({str(one) for one in found}) == 1
    with pytest.raises((dl.StreamError, dl.ConfigError), match=text):
        raise found[0]


def test_an_item_unlike_the_first_is_no_bad_item():
    how = {"map": lambda item: (np.zeros(2 + item // 5), item), "on_bad": "weight0"}
    (error,) = on_ranks(1, lambda: range(10), device_batch=2, **how)
    assert "item 5 of the stream: ValueError: x is float64(3,), and was float64(2,)" in str(error)


def test_a_generator_that_raises_ends_the_job_all_the_same():
    def raises():
        yield from numbers(9)
        raise OSError("the disk is gone")

    found = on_ranks(2, raises, device_batch=2, map=refusing({3}), on_bad="weight0")
    assert "item 9 of the stream: OSError: the disk is gone" in endings(found, dl.StreamError)


def test_raise_writes_the_item_down_and_ends_the_job_as_ever(tmp_path):
    how = {"map": refusing({5}), "bad_file": tmp_path / "bad.jsonl", "bad_budget": 0}
    found = on_ranks(2, lambda: numbers(20), device_batch=2, **how)
    assert "item 5 of the stream: ValueError: no such color" in endings(found, dl.StreamError)
    assert [line["sample"] for line in lines(tmp_path / "bad.jsonl")] == [5]


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ({"on_bad": "replace", "map": abs}, 'on_bad="replace" is not for a stream.*use "weight0"'),
        ({"on_bad": "skip", "map": abs}, "on_bad must be one of"),
        ({"on_bad": "weight0"}, "there is no map"),
        ({"on_bad": "weight0", "map": abs, "bad_budget": 0.1}, "must be a number of items such as 100, not 0.1"),
        ({"on_bad": "weight0", "map": abs, "bad_budget": True}, "must be a number of items"),
        ({"on_bad": "weight0", "map": abs, "bad_budget": -1}, "bad_budget must be a number"),
    ],
)
def test_a_policy_that_streams_cannot_have_is_refused_at_once(how, text):
    with pytest.raises(dl.ConfigError, match=text):
        dl.StreamSequence(list, 2, world=World(rank=0, size=1, local_rank=0, local_size=1), **how)


# ------------------------------------------------------------------------------------------------ memory, and the end


@pytest.mark.parametrize("size", [1, 2])
def test_no_more_is_read_ahead_than_the_host_batch_holds(size):
    drawn = Counter()

    def endless(rank):
        for number in itertools.count():
            drawn[rank] += 1
            yield number

    def look(sequence):
        batches = iter(sequence)
        for _ in range(3):
            next(batches)
        time.sleep(0.3)
        return drawn[sequence.world.rank]

    for count in on_ranks(size, endless, look, device_batch=4, host_batch=20):
        assert count <= 3 * 4 + 20


def test_the_users_generator_is_closed_and_no_thread_is_left(threads):
    ended = []

    def endless():
        try:
            yield from itertools.count()
        finally:
            ended.append(threading.current_thread().name)

    def look(sequence):
        next(iter(sequence))
        sequence.close()
        return list(ended)

    (found,) = on_ranks(1, endless, look, device_batch=4)
    assert len(found) == 1
    assert threads() == []


# ----------------------------------------------------------------------------------------------------------- training


@pytest.fixture
def strategy():
    return dl.init("single", watchdog=None)


class Seen(keras.Model):
    """Notes what its steps work on."""

    def __init__(self):
        super().__init__(name="seen")
        self.layer = keras.layers.Dense(1, name="dense")
        self.trained = []

    def call(self, x):
        return self.layer(x)

    def train_step(self, data):
        import tensorflow as tf

        _, y, weights = data
        tf.py_function(
            lambda y, w: self.trained.append(y.numpy()[w.numpy() > 0].astype(int).tolist()), [y, weights], []
        )
        return super().train_step(data)


def model():
    keras.utils.set_random_seed(1)
    made = Seen()
    made.compile(keras.optimizers.SGD(1e-4, momentum=0.9, name="sgd"), "mse", metrics=["mae"])
    return made


class Break(keras.callbacks.Callback):
    """Breaks off a training after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def stream(strategy, make=lambda epoch: numbers(22, 100 * epoch), **how):
    return dl.StreamSequence(make, 4, 16, strategy=strategy, threads=2, **how)


@pytest.mark.parametrize("together", [1, 3])
def test_fit_evaluate_and_predict_take_streams(strategy, together):
    made, closed = model(), []
    made.compile(keras.optimizers.SGD(1e-4), "mse", metrics=["mae"], steps_per_execution=together)

    def items(epoch):
        try:
            yield from numbers(22, 100 * epoch)
        finally:
            closed.append(epoch)

    history = strategy.fit(made, stream(strategy, items), stream(strategy, lambda: numbers(9)), epochs=3, verbose=0)
    expected = [list(range(100 * epoch, 100 * epoch + 22)) for epoch in range(3)]
    assert made.trained == [items[at : at + 4] for items in expected for at in range(0, 22, 4)]
    assert closed == [0, 1, 2]
    assert (history.summary.samples, history.summary.val_samples, history.summary.steps_per_epoch) == (22, 9, 6)
    assert len(history.history["val_loss"]) == 3
    found = strategy.evaluate(made, stream(strategy, lambda: numbers(9)))
    x = np.stack([x for x, _ in numbers(9)])
    outputs = strategy.predict(made, stream(strategy, lambda: (x for x, _ in numbers(9))))
    assert outputs == pytest.approx(made(x).numpy(), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(outputs[:, 0] - np.arange(9)).mean(), rel=1e-5)


@pytest.mark.parametrize(("kind", "broken_after"), [("epochs", 3), ("cut", 8)])
def test_a_training_goes_on_in_the_middle_of_an_epoch(strategy, tmp_path, kind, broken_after):
    def feed():
        return stream(strategy) if kind == "epochs" else stream(strategy, lambda: numbers(48), steps_per_epoch=6)

    whole = model()
    strategy.fit(whole, feed(), epochs=2, verbose=0)
    first = model()
    with pytest.raises(KeyboardInterrupt):
        strategy.fit(
            first,
            feed(),
            epochs=2,
            verbose=0,
            checkpoint_dir=tmp_path,
            checkpoint_every=1,
            callbacks=[Break(broken_after)],
        )
    second = model()
    history = strategy.fit(second, feed(), epochs=2, verbose=0, checkpoint_dir=tmp_path, checkpoint_every=1)
    done = first.trained[: len(whole.trained) - len(second.trained)]
    assert done + second.trained == whole.trained
    assert len(second.trained) >= len(whole.trained) - broken_after
    for mine, theirs in zip(second.get_weights(), whole.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    assert history.history["loss"]
    lines = [line.split(",")[:3] for line in Path(tmp_path / "steps.jsonl").read_text().splitlines()]
    assert lines


def test_a_training_goes_on_with_the_validation_of_an_epoch_that_has_ended(strategy, tmp_path):
    class BreakBefore(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            raise KeyboardInterrupt

    how = {"epochs": 2, "verbose": 0, "checkpoint_dir": tmp_path, "checkpoint_every": 1}
    first, second = model(), model()
    with pytest.raises(KeyboardInterrupt):
        strategy.fit(first, stream(strategy), stream(strategy), callbacks=[BreakBefore()], **how)
    history = strategy.fit(second, stream(strategy), stream(strategy), **how)
    done = first.trained[: 12 - len(second.trained)]
    assert list(itertools.chain(*done, *second.trained)) == [*range(22), *range(100, 122)]
    assert len(history.history["val_loss"]) == 2
    assert len(second.trained) <= 7


def test_an_error_of_the_stream_comes_out_of_fit_with_its_name(strategy):
    def raises():
        yield from numbers(9)
        raise OSError("the disk is gone")

    made = model()
    with pytest.raises(dl.StreamError, match="item 9 of the stream: OSError: the disk is gone") as caught:
        strategy.fit(made, stream(strategy, raises), verbose=0)
    assert "raises" in "".join(caught.value.__notes__)
    assert made.trained == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_plain_keras_takes_a_stream_and_its_epochs_move_on():
    made = model()
    sequence = dl.StreamSequence(lambda epoch: numbers(6, 100 * epoch), 4, world=World.detect())
    made.fit(sequence, epochs=2, verbose=0)
    assert made.trained == [[0, 1, 2, 3], [4, 5], [100, 101, 102, 103], [104, 105]]
    sequence.close()


def test_other_data_under_the_same_checkpoints_is_refused(strategy, tmp_path):
    strategy.fit(model(), stream(strategy), epochs=1, verbose=0, checkpoint_dir=tmp_path)
    with pytest.raises(dl.ConfigError, match="steps per epoch"):
        feed = stream(strategy, lambda: numbers(48), steps_per_epoch=6)
        strategy.fit(model(), feed, epochs=2, verbose=0, checkpoint_dir=tmp_path)


BAD = {0, 5, 6, 8, 9, 10, 11, 17}  # a step is without any good item


def test_a_training_with_bad_items_is_that_of_one_process_on_the_others(strategy, tmp_path):
    def feed(**how):
        return stream(strategy, lambda: numbers(22), map=refusing(BAD), on_bad="weight0", **how)

    made = model()
    history = strategy.fit(made, feed(), feed(), epochs=2, verbose=0, checkpoint_dir=tmp_path)
    kept = [[item for item in range(at, min(at + 4, 22)) if item not in BAD] for at in range(0, 22, 4)]
    assert made.trained == kept * 2
    assert (history.summary.samples, history.summary.steps_per_epoch) == (22, 6)
    assert history.summary.bad_samples == 2 * len(BAD)  # those of the validation are another stream's
    found = Counter(line["sample"] for line in lines(tmp_path / "bad_samples.jsonl"))
    assert found == Counter([*BAD] * 2)

    fresh = model()
    fresh(np.zeros((1, 2)))
    weights, velocity = fresh.get_weights(), [0, 0]
    for items in kept * 2:
        y = np.array(items, np.float32)[:, None]
        x = np.repeat(y, 2, axis=1)
        wrong = x @ weights[0] + weights[1] - y
        slopes = [2 * x.T @ wrong / max(len(items), 1), 2 * wrong.sum(0) / max(len(items), 1)]
        velocity = [0.9 * old - 1e-4 * slope for old, slope in zip(velocity, slopes, strict=True)]
        weights = [weight + step for weight, step in zip(weights, velocity, strict=True)]
    for mine, theirs in zip(made.get_weights(), weights, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)

    good = [item for item in range(22) if item not in BAD]
    outputs = strategy.predict(made, feed())[:, 0]
    assert np.flatnonzero(np.isnan(outputs)).tolist() == sorted(BAD)
    mae = np.abs(outputs[good] - good).mean()
    assert strategy.evaluate(made, feed())["mae"] == pytest.approx(mae, rel=1e-5)


def test_a_training_with_bad_items_goes_on_in_the_middle_of_an_epoch(strategy, tmp_path):
    def feed():
        how = {"map": refusing({item + 100 * epoch for item in BAD for epoch in range(2)}), "on_bad": "weight0"}
        return stream(strategy, **how)

    how = {"epochs": 2, "verbose": 0, "checkpoint_every": 1}
    whole, first, second = model(), model(), model()
    whole_run = strategy.fit(whole, feed(), **how)
    with pytest.raises(KeyboardInterrupt):
        strategy.fit(first, feed(), **how, checkpoint_dir=tmp_path, callbacks=[Break(3)])
    strategy.fit(second, feed(), **how, checkpoint_dir=tmp_path)
    done = first.trained[: len(whole.trained) - len(second.trained)]
    assert done + second.trained == whole.trained
    assert len(second.trained) < len(whole.trained)
    for mine, theirs in zip(second.get_weights(), whole.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    assert whole_run.summary.bad_samples == 2 * len(BAD)
