"""Which samples a rank trains on: what must hold for every size, and what is refused."""

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.plan import Plan

REMAINDERS = ("weight", "drop", "wrap")

sizes = st.fixed_dictionaries(
    {
        "samples": st.integers(1, 300),
        "world_size": st.integers(1, 9),
        "device_batch": st.integers(1, 20),
        "replicas": st.integers(1, 3),
        "accumulate": st.integers(1, 3),
    }
)
choices = st.fixed_dictionaries(
    {"seed": st.integers(-(2**70), 2**70), "shuffle": st.booleans(), "remainder": st.sampled_from(REMAINDERS)}
)
epochs = st.integers(0, 2**40)


@st.composite
def plans(draw, **fixed):
    kwargs = {**draw(sizes), **draw(choices), **fixed}
    if kwargs["remainder"] == "drop":
        one_step = kwargs["world_size"] * kwargs["device_batch"] * kwargs["replicas"] * kwargs["accumulate"]
        kwargs["samples"] += one_step  # or there would be no step
    return Plan(**kwargs)


def epoch_of(plan, epoch):
    """(steps, ranks, local_batch) sample numbers, and weights of the same shape."""
    parts = [
        [plan.batch(epoch, step, rank) for rank in range(plan.world_size)]
        for step in range(plan.steps)
    ]  # fmt: skip
    numbers = np.array([[numbers for numbers, _ in ranks] for ranks in parts])
    weights = np.array([[weights for _, weights in ranks] for ranks in parts])
    return numbers, weights


@given(plans(), epochs)
def test_every_batch_is_of_one_length_and_type_and_within_the_index(plan, epoch):
    numbers, weights = epoch_of(plan, epoch)
    assert numbers.shape == weights.shape == (plan.steps, plan.world_size, plan.local_batch)
    assert numbers.dtype == np.int64
    assert weights.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < plan.samples
    assert set(np.unique(weights)) <= {0.0, 1.0}


@given(plans(remainder="weight"), epochs)
def test_every_sample_has_weight_1_exactly_once_in_an_epoch(plan, epoch):
    numbers, weights = epoch_of(plan, epoch)
    assert sorted(numbers[weights == 1].tolist()) == list(range(plan.samples))


@given(plans(remainder="weight"), epochs)
def test_weight_0_marks_only_the_end_of_the_last_step(plan, epoch):
    _, weights = epoch_of(plan, epoch)
    whole = weights.reshape(plan.steps, plan.global_batch)
    assert (whole[:-1] == 1).all()
    real = plan.samples - (plan.steps - 1) * plan.global_batch
    assert 1 <= real <= plan.global_batch
    assert whole[-1].tolist() == [1.0] * real + [0.0] * (plan.global_batch - real)


@given(plans(remainder="drop"), epochs)
def test_drop_leaves_out_less_than_a_step_and_repeats_nothing(plan, epoch):
    numbers, weights = epoch_of(plan, epoch)
    assert (weights == 1).all()
    assert len(np.unique(numbers)) == numbers.size
    assert 0 <= plan.samples - numbers.size < plan.global_batch


@given(plans(remainder="wrap"), epochs)
def test_wrap_shows_every_sample_and_fills_the_last_step_from_the_epochs_start(plan, epoch):
    numbers, weights = epoch_of(plan, epoch)
    assert (weights == 1).all()
    order = numbers.reshape(-1)
    assert sorted(order[: plan.samples].tolist()) == list(range(plan.samples))
    assert 0 <= order.size - plan.samples < plan.global_batch
    np.testing.assert_array_equal(order, np.resize(order[: plan.samples], order.size))


@given(plans(), epochs)
def test_the_fill_comes_from_the_epochs_start(plan, epoch):
    order = epoch_of(plan, epoch)[0].reshape(-1)
    np.testing.assert_array_equal(order, np.resize(order[: plan.samples], order.size))


@given(plans(), epochs)
def test_real_samples_and_weighted_say_what_the_weights_say(plan, epoch):
    _, weights = epoch_of(plan, epoch)
    assert [plan.real_samples(step) for step in range(plan.steps)] == weights.sum((1, 2)).tolist()
    assert plan.weighted == bool((weights == 0).any())


@pytest.mark.parametrize("remainder", REMAINDERS)
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("samples", [24, 25, 47, 100])
def test_a_step_holds_the_same_samples_for_every_world_with_the_same_global_batch(samples, shuffle, remainder):
    def order(world_size, replicas, accumulate):
        device_batch = 24 // (world_size * replicas * accumulate)
        plan = Plan(samples, world_size, device_batch, replicas, accumulate, 5, shuffle, remainder)
        assert plan.global_batch == 24
        numbers, weights = epoch_of(plan, 3)
        return numbers.reshape(plan.steps, 24).tolist(), weights.reshape(plan.steps, 24).tolist()

    alone = order(1, 1, 1)
    for world_size, replicas, accumulate in itertools.product((1, 2, 3, 4, 8), (1, 3), (1, 2)):
        if 24 % (world_size * replicas * accumulate) == 0:
            assert order(world_size, replicas, accumulate) == alone


@given(st.integers(1, 300), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), choices, epochs)
def test_world_size_is_no_part_of_the_order(samples, world_size, replicas, device_batch, kwargs, epoch):
    whole_batch = world_size * replicas * device_batch
    samples += whole_batch  # for "drop"
    divided = Plan(samples, world_size, device_batch, replicas, **kwargs)
    alone = Plan(samples, 1, whole_batch, **kwargs)
    assert divided.steps == alone.steps
    for ours, theirs in zip(epoch_of(divided, epoch), epoch_of(alone, epoch), strict=True):
        np.testing.assert_array_equal(ours.reshape(-1), theirs.reshape(-1))


@given(plans(), epochs, st.randoms(use_true_random=False))
def test_a_batch_depends_on_nothing_but_its_arguments(plan, epoch, random):
    numbers, weights = epoch_of(plan, epoch)
    places = list(itertools.product(range(plan.steps), range(plan.world_size)))
    random.shuffle(places)
    again = Plan(**{name: getattr(plan, name) for name in plan.__dataclass_fields__})
    for step, rank in places[:20]:
        for same in (plan, again):
            same_numbers, same_weights = same.batch(epoch, step, rank)
            np.testing.assert_array_equal(same_numbers, numbers[step, rank])
            np.testing.assert_array_equal(same_weights, weights[step, rank])
            same_numbers[:], same_weights[:] = -1, -1  # what a caller does to a batch stays with the caller


# ------------------------------------------------------------------------------------------------------ several passes

passes = st.fixed_dictionaries({"passes": st.integers(2, 4), "pass_batches": st.integers(1, 12)})


@given(plans(), passes, epochs)
def test_each_group_of_batches_is_gone_over_so_many_times_before_the_next(plan, kwargs, epoch):
    again, times = replace(plan, **kwargs), kwargs["passes"]
    assert (again.batches, again.steps, again.weighted) == (plan.steps, times * plan.steps, plan.weighted)
    assert 1 <= again.pass_batches <= plan.steps
    order = [again.batch_number(epoch, step) for step in range(again.steps)]
    for first in range(0, plan.steps, again.pass_batches):
        group = range(first, min(first + again.pass_batches, plan.steps))
        for number in range(times):
            at = times * first + number * len(group)
            this_pass = order[at : at + len(group)]
            assert sorted(this_pass) == list(group)
            assert number or this_pass == list(group)  # the first time, in the order in which they are read
            assert all(again.group(step) == group for step in range(at, at + len(group)))
    numbers, weights = epoch_of(again, epoch)
    once, once_weights = epoch_of(plan, epoch)
    np.testing.assert_array_equal(numbers, once[order])
    np.testing.assert_array_equal(weights, once_weights[order])
    assert [again.real_samples(step) for step in range(again.steps)] == weights.sum((1, 2)).tolist()


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(1, 6), choices, passes, epochs)
def test_world_size_is_no_part_of_the_order_of_several_passes(samples, world_size, device_batch, kwargs, again, epoch):
    samples += world_size * device_batch  # for "drop"
    divided = Plan(samples, world_size, device_batch, **kwargs, **again)
    alone = Plan(samples, 1, world_size * device_batch, **kwargs, **again)
    for ours, theirs in zip(epoch_of(divided, epoch), epoch_of(alone, epoch), strict=True):
        np.testing.assert_array_equal(ours.reshape(-1), theirs.reshape(-1))


def test_later_passes_have_orders_of_their_own():
    def orders(seed=0, epoch=0, shuffle=True):
        plan = Plan(200, 1, 2, seed=seed, shuffle=shuffle, passes=4, pass_batches=20)
        order = [plan.batch_number(epoch, step) for step in range(plan.steps)]
        # Without the first pass of each group, and counted from its first batch.
        return [tuple(n - n // 20 * 20 for n in order[at : at + 20]) for at in range(0, 400, 20) if at // 20 % 4]

    different = {order for seed in range(3) for epoch in range(3) for order in orders(seed, epoch)}
    assert len(different) == 9 * 15
    assert set(orders(shuffle=False)) == {tuple(range(20))}


@given(plans(), epochs, st.integers(0, 400), st.integers(1, 30))
def test_several_batches_at_once_are_those_of_the_steps(plan, epoch, first, count):
    first %= plan.steps
    rank = plan.world_size - 1
    numbers, weights = plan.read(epoch, first, count, rank)
    steps = range(first, min(first + count, plan.steps))
    assert numbers.shape == weights.shape == (len(steps), plan.local_batch)
    for step, *row in zip(steps, numbers, weights, strict=True):
        for ours, theirs in zip(row, plan.batch(epoch, step, rank), strict=True):
            np.testing.assert_array_equal(ours, theirs)


# --------------------------------------------------------------------------------------------------- sizes and mistakes


def test_epochs_and_seeds_differ_and_do_not_alias():
    def order(seed, epoch, shuffle=True):
        return tuple(epoch_of(Plan(100, 2, 10, seed=seed, shuffle=shuffle), epoch)[0].reshape(-1).tolist())

    orders = {order(seed, epoch) for seed in range(-3, 10) for epoch in range(13)}
    assert len(orders) == 13 * 13
    assert order(1, 0, shuffle=False) == order(0, 7, shuffle=False) == tuple(range(100))


@pytest.mark.parametrize(("samples", "world_size", "device_batch"), [(1, 1, 1), (1, 8, 4), (3, 8, 1), (7, 8, 16)])
def test_fewer_samples_than_ranks_make_one_step_with_every_sample_once(samples, world_size, device_batch):
    plan = Plan(samples, world_size, device_batch)
    numbers, weights = epoch_of(plan, 0)
    assert plan.steps == 1
    assert sorted(numbers[weights == 1].tolist()) == list(range(samples))
    assert plan.real_samples(0) == samples


def test_a_batch_of_a_billion_samples_costs_no_more_than_one_of_a_thousand():
    plan = Plan(10**9, 64, 32)
    start = time.perf_counter()
    seen = {
        sample
        for step in (0, plan.steps // 2, plan.steps - 1)
        for rank in (0, 63)
        for sample in plan.batch(7, step, rank)[0].tolist()
    }
    assert time.perf_counter() - start < 5  # the order of all samples would take minutes, and 8 GB
    assert len(seen) == 6 * 32
    assert max(seen) > 10**8


def test_numpys_small_integers_do_not_overflow():
    plan = Plan(np.int32(2**31 - 1), np.int32(1), np.int32(10**6), shuffle=False)
    numbers, _ = plan.batch(np.int64(0), np.int32(2147), np.int32(0))
    assert numbers[0] == 2147 * 10**6
    assert Plan(10**10, 1, 10**6, shuffle=False).batch(0, np.int32(9999), 0)[0][0] == 9999 * 10**6


@given(plans(), st.integers(1, 5))
def test_a_larger_global_batch_is_a_plan_with_more_device_batches_to_an_update(plan, times):
    at_once = plan.device_batch * plan.replicas * plan.world_size
    assume(plan.remainder != "drop" or plan.samples >= at_once * times)
    larger = plan.with_global_batch(at_once * times)
    assert (larger.global_batch, larger.accumulate) == (at_once * times, times)
    whole = Plan(plan.samples, 1, at_once * times, 1, 1, plan.seed, plan.shuffle, plan.remainder)
    np.testing.assert_array_equal(epoch_of(larger, 1)[0].reshape(-1), epoch_of(whole, 1)[0].reshape(-1))


@pytest.mark.parametrize("global_batch", [0, -12, 1, 6, 13, 18, True, 12.0, "12"])
def test_a_global_batch_that_is_no_multiple_is_refused(global_batch):
    assert Plan(100, 2, 3, 2).with_global_batch(24).accumulate == 2
    with pytest.raises(ConfigError, match="global_batch") as caught:
        Plan(100, 2, 3, 2).with_global_batch(global_batch)
    assert repr(global_batch) in str(caught.value)


SIZES = ("samples", "world_size", "device_batch", "replicas", "accumulate", "passes", "pass_batches")


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -1, True, 1.5, 2.0, "3", None, np.float32(1)])
def test_a_size_that_is_no_whole_number_above_0_is_refused_by_name(name, value):
    kwargs = {"samples": 10, "world_size": 1, "device_batch": 1, name: value}
    with pytest.raises(ConfigError) as caught:
        Plan(**kwargs)
    assert name in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("seed", [True, 1.5, "3", None])
def test_a_seed_that_is_no_whole_number_is_refused(seed):
    with pytest.raises(ConfigError, match="seed"):
        Plan(10, 1, 1, seed=seed)


@pytest.mark.parametrize("remainder", ["Weight", "", None, "pad"])
def test_an_unknown_remainder_is_refused(remainder):
    with pytest.raises(ConfigError, match=r"weight, drop, wrap") as caught:
        Plan(10, 1, 1, remainder=remainder)
    assert repr(remainder) in str(caught.value)


def test_a_dropped_remainder_that_leaves_no_step_is_refused():
    assert Plan(8, 2, 4, remainder="drop").steps == 1
    with pytest.raises(ConfigError, match="7 samples are fewer than one global batch of 8"):
        Plan(7, 2, 4, remainder="drop")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ((-1, 0, 0), "epoch -1"),
        ((0, -1, 0), "step -1"),
        ((0, 3, 0), "step 3"),
        ((0, 0, -1), "rank -1"),
        ((0, 0, 2), "rank 2"),
    ],
)
def test_a_place_out_of_range_is_an_index_error(place, said):
    plan = Plan(20, 2, 4)
    assert plan.steps == 3
    with pytest.raises(IndexError, match=said):
        plan.batch(*place)


def test_a_place_that_is_no_whole_number_is_a_type_error():
    for place in [(0.5, 0, 0), (0, 1.5, 0), (0, 0, "1")]:
        with pytest.raises(TypeError):
            Plan(20, 2, 4).batch(*place)


@pytest.mark.parametrize("step", [-1, 3])
def test_real_samples_of_a_step_out_of_range_is_an_index_error(step):
    with pytest.raises(IndexError, match=f"step {step}"):
        Plan(20, 2, 4).real_samples(step)
