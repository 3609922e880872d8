"""Lines from the wire: what is not as it should be is dropped, and nothing raises."""

from __future__ import annotations

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from dist_loader.watchdog.lines import (
    LONGEST,
    State,
    decoded,
    end_in,
    next_line,
    state_in,
    state_line,
    text_in,
)
from dist_loader.watchdog.place import DOINGS, STAGES

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.dictionaries(st.sampled_from([*State.__dataclass_fields__, "how", "reason", "kind"]), anything)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_none(data: bytes) -> None:
    assert isinstance(decoded(data), dict)


@settings(max_examples=40)
@given(fields)
def test_any_object_is_a_state_in_bounds_and_an_end(line: dict) -> None:
    state = state_in(line)
    assert state.stage in STAGES
    assert state.doing in DOINGS
    assert 0 <= state.count < 2**53
    assert -1 <= state.step < 2**53
    assert 0 <= state.seconds < 2**53
    assert end_in(line).how in ("done", "left", "failed", "followed")


def test_a_state_survives_the_wire() -> None:
    state = State(7, "validation", 3, 4, "step", 1.5, 0.5, "photos/a b.jpg")
    assert state_in(decoded(state_line(state))) == state


def test_text_obeys_no_terminal() -> None:
    assert text_in({"detail": "a\x1b[2Jb\r\nc"}, "detail") == "a?[2Jb?\nc"
    assert len(text_in({"detail": "x" * 5000}, "detail")) == 1000


def test_a_line_too_long_ends_the_connection() -> None:
    async def read(data: bytes) -> dict | None:
        reader = asyncio.StreamReader(limit=LONGEST)
        reader.feed_data(data)
        reader.feed_eof()
        return await next_line(reader)

    assert asyncio.run(read(json.dumps({"a": "x" * 2 * LONGEST}).encode() + b"\n")) is None
    assert asyncio.run(read(b'{"kind": "state"')) is None
    assert asyncio.run(read(b"[1]\n")) == {}
    assert asyncio.run(read(b"\xff\n")) == {}
