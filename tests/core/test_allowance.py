"""Token buckets and places."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.allowance import Allowance, Allowances, Pace, Places, Verdict

RATES = st.floats(0.01, 1000.0)
BURSTS = st.integers(1, 500)
GAPS = st.lists(st.floats(0.0, 50.0), min_size=1, max_size=60)


def test_a_burst_at_once_and_then_so_many_a_second() -> None:
    allowance = Allowance(rate=10.0, burst=5)
    assert [allowance.take(100.0) for _ in range(5)] == [0.0] * 5
    assert allowance.take(100.0) == pytest.approx(0.1, abs=1e-3)
    assert allowance.take(100.05) == pytest.approx(0.05, abs=1e-3)
    assert allowance.take(100.1) == 0.0
    assert allowance.take(100.1) > 0
    assert [allowance.take(200.0) for _ in range(6)].count(0.0) == 5, "a quiet time gives the burst, and no more"


def test_what_is_refused_costs_nothing() -> None:
    allowance = Allowance(rate=1.0, burst=1)
    allowance.take(0.0)
    waits = [allowance.take(0.0) for _ in range(1000)]
    assert len(set(waits)) == 1
    assert allowance.take(1.0) == 0.0


def test_to_look_takes_nothing() -> None:
    allowance = Allowance(rate=1.0, burst=1)
    assert [allowance.wait(0.0) for _ in range(3)] == [0.0] * 3
    assert allowance.take(0.0) == 0.0
    assert allowance.wait(0.25) == pytest.approx(0.75, abs=1e-2)


def test_a_rate_of_nothing_is_no_limit() -> None:
    allowance, allowances = Allowance(0, 1), Allowances(0, 1)
    assert {allowance.take(0.0) for _ in range(1000)} == {0.0}
    assert {allowances.take("a", 0.0) for _ in range(1000)} == {0.0}
    assert len(allowances) == 0


@pytest.mark.parametrize(("rate", "burst"), [(-1.0, 5.0), (1.0, 0.0), (1.0, 0.5)])
def test_what_would_never_let_anything_pass_is_an_error(rate: float, burst: float) -> None:
    with pytest.raises(ValueError, match="from 0 and from 1"):
        Allowance(rate, burst)


@given(RATES, BURSTS, GAPS, st.floats(0.0, 1e6))
def test_never_more_than_the_burst_and_the_rate_allow(rate: float, burst: int, gaps: list[float], start: float) -> None:
    allowance = Allowance(rate, burst)
    now, taken = start, []
    for gap in gaps:
        now += gap
        taken += [now for _ in range(burst + 2) if not allowance.take(now)]
    for index, moment in enumerate(taken):
        assert len(taken) - index <= burst + rate * (now - moment) + 0.01 + 1e-6 * rate * now


@given(RATES, BURSTS, GAPS, st.floats(0.0, 1e6))
def test_who_waits_as_long_as_it_was_told_is_not_told_to_wait_again(
    rate: float, burst: int, gaps: list[float], start: float
) -> None:
    allowance = Allowance(rate, burst)
    now = start
    for gap in gaps:
        now += gap
        while not allowance.take(now):
            pass
        wait = allowance.wait(now)
        assert 0 < wait <= 1 / rate
        # Beyond the resolution of the sum, no less than was said, nor more.
        now += wait + 1e-9 * (now + 1)
        assert allowance.take(now) == 0.0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.0, 3.0)), max_size=100), RATES, BURSTS)
def test_each_key_has_its_own(events: list[tuple[str, float]], rate: float, burst: int) -> None:
    together, apart = Allowances(rate, burst), {key: Allowance(rate, burst) for key in "abc"}
    now = 0.0
    for key, gap in events:
        now += gap
        assert together.wait(key, now) == pytest.approx(apart[key].wait(now))
        assert together.take(key, now) == pytest.approx(apart[key].take(now))


def test_of_a_key_too_what_is_refused_costs_nothing_and_to_look_takes_nothing() -> None:
    allowances = Allowances(rate=1.0, burst=1)
    assert allowances.take("a", 0.0) == 0.0
    assert {allowances.take("a", 0.0) > 0 for _ in range(100)} == {True}
    assert allowances.wait("a", 0.25) == pytest.approx(0.75, abs=1e-2)
    assert allowances.wait("b", 0.25) == 0.0
    assert allowances._most_keys == 50_000
    assert allowances.take("a", 1.0) == 0.0


def test_whose_bucket_is_full_again_is_forgotten_and_nobody_else_within_the_bound() -> None:
    allowances = Allowances(rate=1.0, burst=1, most_keys=2)
    for key in "ab":
        allowances.take(key, 0.0)
    assert len(allowances) == 2
    allowances.take("c", 1.0)
    assert len(allowances) == 1


def test_the_table_shrinks_by_itself() -> None:
    allowances = Allowances(rate=1.0, burst=10)
    for number in range(1000):
        allowances.take(f"{number}", 0.0)
    assert len(allowances) == 1000
    for _ in range(100):
        allowances.take("one", 100.0)
    assert len(allowances) == 1000 + 1 - 2 * 100, "two for each that asks"
    for number in range(600):
        allowances.take("one", 100.0 + number)
    assert len(allowances) == 1


def test_the_table_is_bounded_and_whoever_goes_on_asking_is_remembered() -> None:
    allowances = Allowances(rate=0.001, burst=2, most_keys=100)
    assert [allowances.take("storm", 0.0) > 0 for _ in range(3)] == [False, False, True]
    for number in range(10_000):
        assert allowances.take(f"{number}", 0.0) == 0.0
        assert allowances.take("storm", 0.0) > 0
        assert len(allowances) <= 100


def test_who_goes_on_far_over_its_pace_has_had_enough() -> None:
    pace = Pace(rate=10.0, burst=100)
    assert {pace.take(0.0) for _ in range(100)} == {Verdict.TAKEN}
    assert {pace.take(0.0) for _ in range(100)} == {Verdict.REFUSED}
    assert pace.take(0.0) is Verdict.ENOUGH


def test_who_is_a_little_over_its_pace_is_refused_what_is_too_much_for_ever() -> None:
    pace = Pace(rate=10.0, burst=100)
    verdicts = [pace.take(number / 19.0) for number in range(19 * 600)]
    assert Verdict.ENOUGH not in verdicts
    assert verdicts.count(Verdict.TAKEN) == pytest.approx(10 * 600 + 100, abs=5)


def test_places_in_all_and_of_each_key() -> None:
    places = Places(most=3, most_each=2)
    for key in ("a", "a", "b"):
        assert not places.is_full
        assert not places.is_full_for(key)
        places.take(key)
    assert (places.is_full, places.is_full_for("a"), places.is_full_for("b")) == (True, True, False)
    places.leave("a")
    assert (places.is_full, places.is_full_for("a"), places.is_full_for("b")) == (False, False, False)


def test_whoever_is_not_in_yet_has_no_place() -> None:
    assert not Places(most=10, most_each=1).is_full_for("a")


def test_what_has_no_key_counts_only_in_all() -> None:
    places = Places(most=10, most_each=1)
    for _ in range(10):
        assert not places.is_full_for("")
        places.take("")
    assert places.is_full


@given(st.lists(st.sampled_from(["a", "b", ""])))
def test_nothing_is_kept_of_who_has_gone(keys: list[str]) -> None:
    places = Places(most=1000, most_each=1000)
    for key in keys:
        places.take(key)
    assert places.taken == len(keys)
    for key in keys:
        places.leave(key)
    assert places.taken == 0
    assert not places._by_key


def test_a_burst_that_is_spread_evenly_is_never_refused() -> None:
    allowance = Allowance(rate=7.0, burst=1)
    moments = [1e5 + number / 7.0 for number in range(10_000)]
    assert all(after > before for before, after in pairwise(moments))
    assert {allowance.take(moment) for moment in moments} == {0.0}


def test_several_may_be_taken_at_once_and_never_more_than_all() -> None:
    allowances = Allowances(1.0, 10.0)
    assert allowances.take("a", 0.0, 4) == 0
    assert allowances.take("a", 0.0, 6) == 0
    assert allowances.take("a", 0.0, 4) == pytest.approx(4, abs=0.01)
    assert allowances.take("a", 4.0, 4) == 0
    assert allowances.take("b", 0.0, 99) == 0, "a whole burst, when nothing is taken"
    assert allowances.take("b", 0.0) > 0
    assert allowances.take("c", 0.0) == 0
    assert allowances.take("c", 0.5, 99) == pytest.approx(0.5, abs=0.01)
