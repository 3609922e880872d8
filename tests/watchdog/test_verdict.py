"""Who is named, and when: tables of what is known of three ranks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dist_loader.watchdog.lines import End, State
from dist_loader.watchdog.seen import Seen
from dist_loader.watchdog.verdict import Limits, decide
from tests.failures import documented

LIMITS = Limits(stall=600, lost=60, first=1800)
IN_STEP = State(count=100, epoch=1, step=6, doing="step", seconds=10)
READING = replace(IN_STEP, detail="photos/slow.jpg (and 3 more)")
IN_CALLBACKS = replace(IN_STEP, count=99, step=5, doing="callbacks", detail="train.py:57 in on_train_batch_end")
FIRST = State(count=5, step=0, doing="first step")
PREPARING = State(doing="preparing")
AGREEING = replace(IN_STEP, doing="agreeing")
FAILED = End("failed", "SampleError: cannot read 'x.jpg'")
FOLLOWED = End("followed", "HorovodInternalError: shut down")


def ranks(*states: State, **third) -> list[Seen]:
    """Ranks in states; more about the last of them."""
    seen = [Seen(rank, f"node{rank // 2}", state) for rank, state in enumerate(states)]
    return [*seen[:-1], replace(seen[-1], **third)]


def for_(state: State, seconds: float) -> State:
    return replace(state, seconds=seconds)


@pytest.mark.parametrize(
    "seen",
    [
        ranks(IN_STEP, IN_STEP, IN_STEP),
        ranks(for_(IN_STEP, 590), for_(IN_STEP, 590), for_(IN_CALLBACKS, 590)),
        # Those ahead wait for longer than the limit, for one that is slow and moves.
        ranks(for_(IN_STEP, 601), for_(IN_STEP, 601), for_(IN_CALLBACKS, 20)),
        ranks(for_(IN_STEP, 601), for_(IN_STEP, 601), for_(IN_STEP, 20)),
        ranks(for_(FIRST, 1700), for_(FIRST, 1700), for_(FIRST, 1700)),
        ranks(for_(PREPARING, 1700), for_(FIRST, 1700), for_(FIRST, 1700)),
        # A first batch may come late; the sequence's own limit sees to one that does not come.
        ranks(for_(FIRST, 1700), for_(FIRST, 1700), for_(replace(FIRST, detail="x.jpg"), 1700)),
        ranks(IN_STEP, IN_STEP, IN_STEP, silent=59.0),
        ranks(IN_STEP, IN_STEP, State(), reached=False),
        ranks(for_(IN_STEP, 601), for_(IN_STEP, 601), for_(IN_CALLBACKS, 601), silent=30.0),
        ranks(IN_STEP, IN_STEP, IN_STEP, end=FAILED, ended=4.0),
        ranks(IN_STEP, IN_STEP, IN_STEP, end=FOLLOWED, ended=4.0),
        ranks(IN_STEP, IN_STEP, IN_STEP, end=End("left", "SystemExit: 143"), ended=100.0),
        ranks(IN_STEP, IN_STEP, IN_STEP, end=End("done"), closed=5.0, ended=100.0),
        [replace(rank, end=FAILED, ended=100.0) for rank in ranks(IN_STEP, IN_STEP, IN_STEP)],
        [replace(rank, end=End("done"), ended=100.0) for rank in ranks(IN_STEP, IN_STEP, IN_STEP)],
    ],
)
def test_no_alarm(seen: list[Seen]) -> None:
    assert decide(seen, LIMITS) is None


@pytest.mark.parametrize(
    ("seen", "blamed", "words"),
    [
        (
            ranks(for_(IN_STEP, 610), for_(IN_STEP, 611), for_(IN_CALLBACKS, 612)),
            (2,),
            "rank 2 on node1 is stuck at epoch 2, step 6: in callbacks (train.py:57 in on_train_batch_end) for 612 s",
        ),
        (
            ranks(for_(IN_STEP, 20), for_(IN_CALLBACKS, 601), for_(IN_CALLBACKS, 605)),
            (1, 2),
            "rank 1 on node0 and rank 2 on node1 are stuck",
        ),
        (
            ranks(for_(IN_STEP, 610), for_(READING, 610), for_(IN_STEP, 601)),
            (1,),
            "rank 1 on node0 is stuck at epoch 2, step 7: waiting for input: photos/slow.jpg (and 3 more) for 610 s",
        ),
        (ranks(for_(FIRST, 1801), for_(FIRST, 1801), for_(replace(FIRST, detail="x.jpg"), 1801)), (2,), "input: x.jpg"),
        (ranks(for_(FIRST, 1801), for_(FIRST, 1801), for_(FIRST, 1801)), (), "all ranks are stuck at epoch 1, step 1"),
        (ranks(for_(IN_STEP, 601), for_(IN_STEP, 602), for_(IN_STEP, 603)), (), "a device or a link hangs"),
        (ranks(FIRST, FIRST, for_(PREPARING, 1801)), (2,), "rank 2 on node1 is stuck before the first step"),
        (ranks(IN_STEP, IN_STEP, IN_CALLBACKS, silent=61.0), (2,), "rank 2 on node1 does not answer, last heard at"),
        (
            ranks(IN_STEP, IN_STEP, IN_CALLBACKS, closed=0.1),
            (2,),
            "rank 2 on node1 died, last heard at epoch 2, step 6",
        ),
        (
            ranks(IN_STEP, IN_STEP, READING, end=FAILED, ended=5.1),
            (2,),
            "rank 2 on node1 failed at epoch 2, step 7: SampleError: cannot read 'x.jpg'",
        ),
        # All have ended, so nothing is to be waited for: one by its own error, the others because of it.
        ([*ranks(IN_STEP, end=FOLLOWED), *ranks(IN_STEP, READING, end=FAILED)[1:]], (1,), "rank 1 on node0 failed"),
        (ranks(IN_STEP, IN_STEP, IN_STEP, end=FOLLOWED, ended=5.1), (), "rank 2 on node1 at epoch 2, step 7: Horovod"),
        (
            ranks(for_(IN_STEP, 601), for_(IN_STEP, 602), State(), reached=False),
            (2,),
            "rank 2 on node1 never reached this watchdog",
        ),
        # The one that died is the reason, not those that noticed.
        ([*ranks(IN_STEP, end=FOLLOWED), *ranks(IN_STEP, IN_STEP, closed=0.1)[1:]], (1,), "rank 1 on node0 died"),
        (
            ranks(for_(IN_STEP, 601), for_(IN_STEP, 601), IN_STEP, end=End("left", "SystemExit: 3"), ended=601.0),
            (2,),
            "rank 2 on node1 ended at epoch 2, step 7: SystemExit: 3; ranks 0-1 still wait at epoch 2, step 7: ",
        ),
        (
            ranks(for_(IN_CALLBACKS, 601), for_(IN_CALLBACKS, 601), IN_STEP, end=End("done"), ended=601.0),
            (0, 1),
            "after rank 2 ended: in callbacks (train.py:57",
        ),
        # One of those that agree still writes: the others wait for it.
        (
            ranks(
                for_(AGREEING, 601), for_(replace(AGREEING, doing="writing", detail="x.py:7"), 601), for_(AGREEING, 601)
            ),
            (1,),
            "rank 1 on node0 is stuck at epoch 2, step 7: writing a checkpoint (x.py:7) for 601 s",
        ),
        # Gloo gives up the rank that stands still before this watchdog does: it is that one's silence that counts.
        (
            [replace(rank, end=FOLLOWED, ended=5.1) for rank in ranks(IN_STEP, IN_STEP)]
            + [Seen(2, "node1", IN_STEP, silent=35.0)],
            (2,),
            "rank 2 on node1 does not answer, last heard at epoch 2, step 7: no word for 35 s",
        ),
    ],
)
def test_alarm(seen: list[Seen], blamed: tuple[int, ...], words: str) -> None:
    verdict = decide(seen, LIMITS)
    assert verdict is not None
    assert verdict.blamed == blamed
    assert words in verdict.line
    assert documented(verdict.line)
    assert "\n" not in verdict.line
    assert len(verdict.table.splitlines()) == 1 + len(seen)


def test_a_rank_that_has_waited_for_a_slow_one_gets_its_own_time() -> None:
    """It waited for rank 2, which then passed it: that it needs seconds more is no stall."""
    seen = ranks(for_(IN_STEP, 605), for_(IN_STEP, 605), for_(replace(IN_STEP, count=101, doing="callbacks"), 5))
    assert decide(seen, LIMITS, still=5) is None
    verdict = decide(seen, LIMITS, still=601)
    assert verdict is not None
    assert verdict.blamed == (0, 1)


def test_the_table_says_what_each_rank_waits_for() -> None:
    seen = ranks(for_(IN_STEP, 610), for_(replace(IN_STEP, count=98, stage="validation"), 700), for_(IN_STEP, 610))
    verdict = decide(seen, LIMITS)
    assert verdict is not None
    rows = verdict.table.splitlines()
    assert [row.split()[0] for row in rows] == ["rank", "0", "1", "2"]
    for row in (rows[1], rows[3]):
        assert row.endswith("waiting for the other ranks in a step")
    assert rows[2].split() == ["1", "node0", "2", "7", "700", "s", "0", "s", "validation,", "computing", "a", "step"]


def test_one_number_sets_the_limits() -> None:
    assert Limits.of(600) == Limits(stall=600, lost=60, first=1800)
    assert Limits.of(10) == Limits(stall=10, lost=10, first=1800)
    assert Limits.of(3600).first == 10800
