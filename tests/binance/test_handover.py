"""What two connections show, put together: nothing is missing, wherever one takes over from the other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.binance.handover import Handover
from candlesync.binance.parse import Kline, parse_frame
from candlesync.core.candle import Candle
from candlesync.core.interval import MINUTE
from candlesync.core.merge import Source, merge
from tests.binance.connections import BTC, ETH, FIRST, kline


def candle(minute: int, trades: int = 1, *, closed: bool = False) -> Candle:
    frame = parse_frame(kline(BTC, trades=trades, closed=closed, minute=minute))
    assert isinstance(frame, Kline)
    return frame.candle


def handover() -> Handover:
    return Handover(grace=2.0, settle=5.0)


class Series:
    """The candles that a sink makes of what it is shown, as the core does."""

    def __init__(self) -> None:
        self.tail: Candle | None = None
        self.gaps: list[Candle] = []
        self.closed: set[int] = set()

    def show(self, candles: Sequence[Candle]) -> None:
        for candle in candles:
            tail = self.tail
            if tail is None or candle.open_time > tail.open_time:
                is_next = tail is None or (tail.closed and candle.open_time == tail.open_time + MINUTE)
                if not is_next:
                    self.gaps.append(candle)
                self.tail = candle
            elif candle.open_time == tail.open_time:
                self.tail = merge(tail, candle, Source.STREAM) or tail
            if candle.closed:
                self.closed.add(candle.open_time)


@st.composite
def showings(draw: st.DrawFn) -> tuple[list[Candle], list[Candle], list[bool]]:
    """What the old connection shows, what the new one shows from its subscription on, and whose turn it is each time.

    Binance sends both the same closes; the updates between them may be others on each.
    """
    truth = [
        candle(minute, trades, closed=trades == 5)
        for minute in range(draw(st.integers(2, 5)))
        for trades in range(1, 6)
    ]

    def sampled() -> list[bool]:
        return draw(st.lists(st.booleans(), min_size=len(truth), max_size=len(truth)))

    old = [one for one, is_sent in zip(truth, sampled(), strict=True) if is_sent or one.closed]
    subscribed = draw(st.integers(0, len(truth) - 1))
    later = list(zip(truth, sampled(), strict=True))[subscribed:]
    new = [one for one, is_sent in later if is_sent or one.closed]
    turns = [True] * len(old) + [False] * len(new)
    return old, new, draw(st.permutations(turns))


@given(showings(), st.data())
def test_nothing_is_missing_wherever_the_old_one_is_left(
    shown: tuple[list[Candle], list[Candle], list[bool]], data: st.DataObject
) -> None:
    old, new, turns = shown
    series, both, now = Series(), handover(), 0.0
    # The old one was there before: what it shows until the new one is there is shown as ever.
    alone = data.draw(st.integers(0, len(old) - 1))
    before, after = old[:alone], list(old[alone:])
    coming = list(new)
    series.show(before)
    both.begin([BTC], now)
    is_left = False
    reached = candle(-1)
    for is_old in turns:
        now += 0.1
        if is_old and after and not is_left:
            seen = after.pop(0)
            series.show([seen])
            series.show(both.old_shows(BTC, seen, now))
        elif not is_old and coming:
            seen = coming.pop(0)
            reached = seen
            series.show([seen] if is_left else both.new_shows(BTC, seen, now))
        # A quiet series is left to time: here there is always something on its way.
        is_taken = both.is_complete([BTC], now) and not both.is_quiet([BTC])
        if is_taken:  # nothing that the new one has shown is still held back
            assert series.tail is not None
            assert (series.tail.open_time, series.tail.trades) >= (reached.open_time, reached.trades)
        if is_taken and not is_left:
            is_left = data.draw(st.booleans())
    series.show(coming if is_left else [])
    for seen in after if not is_left else ():
        series.show([seen])
        series.show(both.old_shows(BTC, seen, now))
    assert series.gaps == []
    assert series.tail is not None
    first = old[0].open_time
    assert series.closed == set(range(first, series.tail.open_time + series.tail.closed, MINUTE))


def test_the_newer_one_is_held_back_until_the_older_one_has_come_as_far() -> None:
    both = handover()
    both.begin([BTC], 0.0)
    assert both.new_shows(BTC, candle(1, 1), 0.1) == []
    assert both.new_shows(BTC, candle(1, 5, closed=True), 0.2) == []
    assert both.new_shows(BTC, candle(2, 3), 0.3) == []
    assert both.old_shows(BTC, candle(0, 9, closed=True), 0.4) == []
    assert not both.is_complete([BTC], 0.4)
    assert both.old_shows(BTC, candle(1, 2), 0.5) == [candle(1, 5, closed=True), candle(2, 3)]
    assert both.is_complete([BTC], 0.5)
    assert both.new_shows(BTC, candle(2, 4), 0.6) == (candle(2, 4),)
    assert both.old_shows(BTC, candle(1, 3), 0.7) == ()


def test_what_both_show_is_not_shown_again() -> None:
    both = handover()
    assert both.old_shows(BTC, candle(0, 3), 0.0) == []
    assert both.new_shows(BTC, candle(0, 3), 0.0) == []
    assert both.is_complete([BTC], 0.0)


@pytest.mark.parametrize("last", [0.0, 1.9])
def test_quiet_is_when_both_have_shown_nothing_for_a_while(last: float) -> None:
    both = handover()
    both.begin([BTC], 0.0)
    if last:
        both.old_shows(BTC, candle(0), last)  # it was on its way when the new one was subscribed
    assert not both.is_complete([BTC], last + 4.9)
    assert both.is_complete([BTC], last + 5.0)
    assert both.is_quiet([BTC])
    assert both.deaf(100.0) is None
    both.new_shows(BTC, candle(1), last + 6.0)
    assert not both.is_complete([BTC], 100.0)  # the old one has not shown that


def test_who_shows_nothing_of_what_the_other_one_shows_is_deaf_and_never_quiet() -> None:
    both = handover()
    both.begin([BTC], 0.0)
    both.old_shows(BTC, candle(0), 2.1)
    assert both.deaf(7.0) is None
    assert both.deaf(7.2) == BTC
    assert not both.is_complete([BTC], 100.0)
    both.new_shows(BTC, candle(0), 8.0)
    assert both.deaf(100.0) is None
    assert both.is_complete([BTC], 8.0)


def test_each_series_is_taken_over_by_itself() -> None:
    both = handover()
    both.begin([BTC], 0.0)
    both.old_shows(BTC, candle(0), 0.0)
    both.new_shows(BTC, candle(0), 0.0)
    assert both.is_complete([BTC], 0.0)
    assert not both.is_complete([BTC, ETH], 100.0)  # nobody has said that both carry it
    both.forget(BTC)
    assert not both.is_complete([BTC], 100.0)
    assert candle(0).open_time == FIRST
