"""Positions as texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.position import LAST_REVISION, Position, parse_position


@given(st.from_regex(r"[0-9a-z]{1,32}", fullmatch=True), st.integers(min_value=0, max_value=10**18 - 1))
def test_a_position_is_read_back_from_its_text(life: str, revision: int) -> None:
    assert parse_position(str(Position(life, revision))) == Position(life, revision)


@pytest.mark.parametrize(
    "text",
    [
        "", "-", "a-", "-1", "a1", "a--1", "a-1 ", " a-1", "a-1\n", "A-1", "a-1x", "a-0x1", "a-1.0", "a_b-1", "a-1-1",
        "a-" + "1" * 19, "a" * 33 + "-1", "a-\u0661", "é-1", "a-1\x00",
    ],
)  # fmt: skip
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a position"):
        parse_position(text)


@given(st.text())
def test_whatever_is_read_was_written_so(text: str) -> None:
    try:
        position = parse_position(text)
    except ValueError:
        return
    life, revision = text.split("-")
    assert position == Position(life, int(revision))


def test_a_revision_is_what_eighteen_digits_can_write() -> None:
    """So many fit into a signed 64 bit integer, which is what Redis and its scripts count with."""
    assert int("9" * 18) == LAST_REVISION
