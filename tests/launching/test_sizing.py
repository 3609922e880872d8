"""How many ranks, at the start and after hosts were lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dist_loader.errors import ConfigError
from dist_loader.launching.hosts import Host, Hosts
from dist_loader.launching.sizing import Wish, first_size, next_size, pause, with_slots

TWO = Hosts("-H", (Host("a"), Host("b", 3)))
HERE = Hosts("this machine", (Host("localhost"),))


@pytest.mark.parametrize(
    ("hosts", "gpus", "ranks", "slots"),
    [
        (TWO, {"a": 4}, None, [4, 3]),
        (TWO, {"a": 0}, None, [1, 3]),  # without GPUs, one each
        (TWO, {}, 9, [1, 3]),
        (HERE, {"localhost": 4}, None, [4]),
        (HERE, {"localhost": 0}, None, [1]),
        (HERE, {"localhost": 0}, 2, [8]),  # asked for several: its cores
        (HERE, {"localhost": 4}, 2, [4]),
    ],
)
def test_slots_that_nobody_named(hosts: Hosts, gpus: dict[str, int], ranks: int | None, slots: list[int]) -> None:
    assert [host.slots for host in with_slots(hosts, gpus, 8, ranks)] == slots


@settings(max_examples=60)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.data())
def test_after_a_loss_as_many_as_fit_and_divide(slots: list[int], data: st.DataObject) -> None:
    hosts = [Host(f"h{number}", count) for number, count in enumerate(slots)]
    batch = data.draw(st.none() | st.sampled_from([1, 12, 64, 60, 97]))
    wanted = data.draw(st.integers(1, sum(slots)))
    wish = Wish(wanted, data.draw(st.none() | st.integers(1, wanted)), batch)
    assume(not batch or batch % wanted == 0)
    first = first_size(hosts, wish)
    assert first == wanted
    assert next_size(hosts, first, wish) == first  # all are there again
    left = data.draw(st.lists(st.sampled_from(hosts), unique=True))
    room = sum(host.slots or 1 for host in left)
    size = next_size(left, first, wish)
    unfit = data.draw(st.frozensets(st.integers(1, 8)))
    possible = [n for n in range(wish.at_least or first, first + 1) if n <= room and (not batch or batch % n == 0)]
    assert size == max(possible, default=None)
    assert next_size(left, first, replace(wish, unfit=unfit)) == max(set(possible) - unfit, default=None)


def test_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"5 ranks do not fit into 4 slots \(a:1, b:3\).*--oversubscribe"):
        first_size([Host("a", 1), Host("b", 3)], Wish(5))
    assert first_size([Host("a", 1)], Wish(5, oversubscribe=True)) == 5
    assert next_size([Host("a", 1)], 5, Wish(5, oversubscribe=True)) == 5
    assert next_size([], 5, Wish(5, at_least=1, oversubscribe=True)) is None
    with pytest.raises(ConfigError, match="--np-divides 64 is not divided by the 3 ranks"):
        first_size([Host("a", 3)], Wish(divides=64))
    with pytest.raises(ConfigError, match="--min-np 4 is more than the 3 ranks"):
        first_size([Host("a", 3)], Wish(at_least=4))


def test_pauses_grow_and_are_bounded() -> None:
    assert [pause(failures) for failures in (1, 2, 3, 6, 7, 8, 1000)] == [1, 2, 4, 32, 60, 60, 60]
