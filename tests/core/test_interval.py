"""Calendar arithmetic of open times."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.interval import DAY, HOUR, INTERVALS, MINUTE, SECOND, WEEK, Interval

LENGTHS = {
    "1s": SECOND,
    "1m": MINUTE,
    "3m": 3 * MINUTE,
    "5m": 5 * MINUTE,
    "15m": 15 * MINUTE,
    "30m": 30 * MINUTE,
    "1h": HOUR,
    "2h": 2 * HOUR,
    "4h": 4 * HOUR,
    "6h": 6 * HOUR,
    "8h": 8 * HOUR,
    "12h": 12 * HOUR,
    "1d": DAY,
    "3d": 3 * DAY,
    "1w": WEEK,
}

times = st.integers(min_value=0, max_value=4_000_000_000_000)
"""Milliseconds, up to 2096."""
intervals = st.sampled_from(INTERVALS)
steps = st.integers(min_value=-600, max_value=600)


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that is set to a time zone of 14 hours before UTC, so that its months begin on other days."""
    monkeypatch.setenv("TZ", "LINT-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def ms(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * SECOND


def utc(time: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time)


def test_the_sixteen_names_of_binance_shortest_first() -> None:
    names = [str(interval) for interval in INTERVALS]
    assert names == [*LENGTHS, "1M"]
    assert all(Interval(name) is interval for name, interval in zip(names, INTERVALS, strict=True))


@pytest.mark.parametrize("name", ["", "1", "m", "2m", "1H", "1D", "1W", "01m", " 1m", "1m ", "1y"])
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a valid Interval"):
        Interval(name)


def test_a_minute_is_not_a_month() -> None:
    assert Interval("1m") is not Interval("1M")
    assert len({*INTERVALS, *INTERVALS}) == 16


def test_an_interval_survives_pickling_as_itself() -> None:
    assert pickle.loads(pickle.dumps(Interval.H4)) is Interval.H4  # noqa: S301 - our own bytes


@given(intervals, times)
def test_floor_is_the_open_time_of_the_candle_that_holds_a_time(interval: Interval, time: int) -> None:
    start = interval.floor(time)
    assert start <= time < interval.next(start)
    assert interval.is_open_time(start)
    assert interval.floor(start) == start


@given(intervals, times, steps)
def test_next_previous_and_steps_are_inverse(interval: Interval, time: int, count: int) -> None:
    start = interval.floor(time + 60 * 366 * DAY)  # far enough from the epoch for 600 months back
    there = interval.next(start, count)
    assert interval.is_open_time(there) or interval is Interval.D3
    assert interval.next(there, -count) == start
    assert interval.steps(start, there) == count
    assert interval.steps(there, start) == -count
    assert interval.previous(interval.next(start)) == start
    assert (there > start) is (count > 0)


@given(st.sampled_from([Interval(name) for name in LENGTHS]), times, steps)
def test_a_fixed_interval_has_its_length(interval: Interval, time: int, count: int) -> None:
    assert interval.next(time, count) == time + count * LENGTHS[str(interval)]


@given(intervals, times, st.integers(min_value=1, max_value=999))
def test_off_the_grid_there_is_no_number_of_steps(interval: Interval, time: int, off: int) -> None:
    start = interval.floor(time)
    assert interval.steps(start, start + off) is None
    assert interval.steps(start + off, start) is None
    assert not interval.is_open_time(start + off)


@given(times)
def test_a_week_starts_on_monday_at_midnight(time: int) -> None:
    start = utc(Interval.W1.floor(time + WEEK))
    assert (start.weekday(), start.hour, start.minute, start.second) == (0, 0, 0, 0)


def test_the_week_of_a_known_day() -> None:
    thursday = ms(2024, 8, 8, 15)
    assert Interval.W1.floor(thursday) == ms(2024, 8, 5)
    assert not Interval.W1.is_open_time(ms(2024, 8, 8))
    assert Interval.W1.next(ms(2024, 12, 30)) == ms(2025, 1, 6)


@given(times)
def test_a_month_starts_on_its_first_at_midnight(time: int) -> None:
    moment, start = utc(time), utc(Interval.MO1.floor(time))
    assert start == datetime(moment.year, moment.month, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("month", "following", "days"),
    [
        (ms(2023, 2, 1), ms(2023, 3, 1), 28),
        (ms(2024, 2, 1), ms(2024, 3, 1), 29),
        (ms(2100, 2, 1), ms(2100, 3, 1), 28),
        (ms(2000, 2, 1), ms(2000, 3, 1), 29),
        (ms(2023, 12, 1), ms(2024, 1, 1), 31),
        (ms(2024, 4, 1), ms(2024, 5, 1), 30),
    ],
)
def test_months_are_calendar_months(month: int, following: int, days: int) -> None:
    assert Interval.MO1.next(month) == following == month + days * DAY
    assert Interval.MO1.previous(following) == month


def test_months_across_years() -> None:
    assert Interval.MO1.next(ms(2017, 8, 1), 88) == ms(2024, 12, 1)
    assert Interval.MO1.next(ms(2024, 1, 1), -13) == ms(2022, 12, 1)
    assert Interval.MO1.steps(ms(2024, 12, 1), ms(2017, 8, 1)) == -88
    assert Interval.MO1.steps(ms(2024, 1, 1), ms(2024, 1, 31)) is None
    assert not Interval.MO1.is_open_time(ms(2024, 1, 1) + 1)
    assert not Interval.MO1.is_open_time(ms(2024, 1, 1, 1))


def test_three_days_may_open_at_any_midnight_but_are_three_days_apart() -> None:
    listed = ms(2017, 8, 17)
    assert all(Interval.D3.is_open_time(listed + day * DAY) for day in range(3))
    assert not Interval.D3.is_open_time(listed + HOUR)
    assert Interval.D3.steps(listed, listed + 3 * DAY) == 1
    assert Interval.D3.steps(listed, listed + DAY) is None
    assert Interval.D3.floor(ms(2018, 6, 30, 23)) == ms(2018, 6, 28)


def test_the_odd_hours_of_2018_are_off_the_grid() -> None:
    odd = 1_518_168_494_789  # 2018-02-09 09:28:14.789, as Binance has it
    assert not Interval.H1.is_open_time(odd)
    assert Interval.H1.steps(ms(2018, 2, 9, 9), odd) is None
    assert Interval.H1.steps(odd, Interval.H1.next(odd, 42)) == 42


@pytest.mark.usefixtures("far_from_greenwich")
def test_months_are_those_of_utc_wherever_the_server_is() -> None:
    july = ms(2026, 7, 1)
    assert Interval.MO1.is_open_time(july)
    assert Interval.MO1.floor(july) == july
    assert Interval.MO1.floor(july - 1) == ms(2026, 6, 1)
    assert Interval.MO1.next(july) == ms(2026, 8, 1)
    assert Interval.MO1.steps(ms(2026, 6, 1), july) == 1
