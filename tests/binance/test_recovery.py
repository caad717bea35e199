"""How fast Binance is asked after a ban, and while it answers nothing of use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.binance.recovery import RECOVERING, TROUBLE, Recovery

LIMIT = 6_000


def recovery() -> Recovery:
    return Recovery(after_ban=0.4, in_trouble=0.04)


def turns(of: Recovery, now: float, count: int, *, weight: int = 2) -> list[float]:
    return [of.take(weight, LIMIT, now) for _ in range(count)]


def in_trouble() -> Recovery:
    made = recovery()
    for _ in range(TROUBLE):
        made.failed()
    return made


def test_when_nothing_is_wrong_nobody_waits() -> None:
    assert turns(recovery(), 5.0, 1000) == [5.0] * 1000


def test_after_a_ban_twenty_requests_go_each_second() -> None:
    made = recovery()
    made.banned_until(100.0)
    assert turns(made, 100.0, 41) == pytest.approx([100 + number * 0.05 for number in range(41)])


def test_a_heavy_request_takes_as_long_as_the_light_ones_that_weigh_the_same() -> None:
    made = recovery()
    made.banned_until(100.0)
    assert turns(made, 100.0, 2, weight=20) == pytest.approx([100.0, 100.5])


def test_a_minute_after_the_ban_all_is_as_ever() -> None:
    made = recovery()
    made.banned_until(100.0)
    assert turns(made, 100.0 + RECOVERING, 50) == [160.0] * 50


def test_a_turn_that_nobody_wanted_is_not_kept_for_later() -> None:
    made = recovery()
    made.banned_until(100.0)
    assert turns(made, 130.0, 3) == pytest.approx([130.0, 130.05, 130.1])


def test_while_nobody_gets_an_answer_two_requests_go_each_second() -> None:
    made = in_trouble()
    assert made.is_in_trouble
    assert turns(made, 7.0, 5) == pytest.approx([7.0, 7.5, 8.0, 8.5, 9.0])


def test_the_bad_luck_of_a_few_slows_nobody() -> None:
    made = recovery()
    for _ in range(20):
        for _ in range(TROUBLE - 1):
            made.failed()
        made.answered(1.0)
    assert not made.is_in_trouble
    assert turns(made, 1.0, 100) == [1.0] * 100


def test_the_first_good_answer_ends_it_and_all_come_back_as_after_a_ban() -> None:
    made = in_trouble()
    turns(made, 7.0, 100)
    made.answered(9.0)
    assert turns(made, 9.0, 3) == pytest.approx([9.0, 9.05, 9.1])
    assert turns(made, 9.0 + RECOVERING, 10) == [9.0 + RECOVERING] * 10


def test_a_share_of_nothing_slows_nobody() -> None:
    made = Recovery(after_ban=0.0, in_trouble=0.0)
    made.banned_until(100.0)
    for _ in range(TROUBLE):
        made.failed()
    assert turns(made, 101.0, 100) == [101.0] * 100


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.sampled_from([2, 20])),
            st.tuples(st.sampled_from(["fail", "answer"]), st.just(0)),
            st.tuples(st.sampled_from(["ban", "pass"]), st.integers(1, 90)),
        ),
        max_size=80,
    )
)
def test_whatever_happens_the_minute_after_a_ban_keeps_to_its_share(events: list[tuple[str, int]]) -> None:
    made = recovery()
    made.banned_until(30.0)
    now, taken, end = 30.0, list[tuple[float, int]](), 30.0
    for event, number in events:
        match event:
            case "take":
                opens = made.opens(now)
                assert opens == made.take(number, LIMIT, now) >= now
                taken.append((opens, number))
            case "fail":
                made.failed()
            case "answer":
                made.answered(now)
            case "ban":
                end = max(end, now + number)
                made.banned_until(end)
                now, taken = end, []
            case _:
                now += number
    # The first one, and 40 a second from then on.
    spent = [(opens, weight) for opens, weight in taken if opens < end + RECOVERING]
    for start, _ in spent:
        window = [weight for opens, weight in spent if start <= opens < start + 1.0]
        assert sum(window[:-1]) <= 40 + 1e-6
