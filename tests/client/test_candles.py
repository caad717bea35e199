"""What a client holds, and what a message means for it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.client.candles import LATE, Candle, Candles, Change, successor
from candlesync.core.interval import Interval
from candlesync.errors import FeedError

T = 1_700_000_040


def candle(number: int, rev: int = 1, *, closed: bool = True, close: str = "1.50", filled: bool = False) -> Candle:
    """A minute of a series that begins at `T`."""
    one = Decimal(1)
    time, price = T + 60 * number, Decimal(close)
    return Candle("BTCUSDT", "1m", time, one, max(one, price), min(one, price), price, one, closed, rev, filled)


def row(first: int, last: int, rev: int = 1, *, closed: bool = True) -> list[Candle]:
    """Minutes, both ends included; with ``closed`` false the last one is forming."""
    return [candle(number, rev, closed=closed or number != last) for number in range(first, last + 1)]


def loaded(candles: Sequence[Candle], most: int = 1000) -> Candles:
    made = Candles(Interval.M1, most)
    made.load(candles)
    return made


def numbers(candles: Sequence[Candle]) -> list[int]:
    return [(one.time - T) // 60 for one in candles]


def given_by(candles: Candles) -> list[int]:
    """All that it has to give."""
    found = []
    while (changed := candles.pop_changed()) is not None:
        found.append(changed)
    return numbers(found)


def test_a_candle_is_read_digit_for_digit() -> None:
    text = (
        b'{"symbol":"BTCUSDT","interval":"1m","time":1700000040,"open":37012.31000000,"high":37020.00000000,'
        b'"low":37010.00000000,"close":37015.20000000,"volume":0.00000001,"closed":false,"rev":7,"position":"x"}'
    )
    made = msgspec.json.decode(text, type=Candle)
    assert str(made.open) == "37012.31000000"
    assert str(made) == (
        "BTCUSDT 1m  2023-11-14 22:14  open 37012.31000000  high 37020.00000000  low 37010.00000000"
        "  close 37015.20000000  volume 0.00000001  forming"
    )
    assert str(candle(0, filled=True)).endswith("volume 1  filled")


def test_months_are_the_calendars() -> None:
    assert successor(1_706_745_600, Interval.MO1) == 1_709_251_200  # February 2024 has 29 days


def test_what_a_message_changes() -> None:
    candles = loaded(row(0, 2, closed=False))
    assert candles.take(candle(2, 2, closed=False, close="2")) is Change.NEWEST
    assert candles.take(candle(2, 3)) is Change.NEWEST
    assert candles.take(candle(3, 4, closed=False)) is Change.NEWEST
    assert candles.take(candle(1, 5, close="9")) is Change.OLDER
    assert candles.take(candle(1, 4, close="8")) is Change.NOTHING
    assert candles.at(T + 60) == candle(1, 5, close="9")
    assert candles.take(candle(-1, 6)) is Change.NOTHING
    assert candles.take(candle(5, 6)) is Change.HOLE
    assert candles.take(candle(4, 6)) is Change.HOLE, "the one before it has not closed"
    assert candles.take(candle(2, 7, closed=False)) is Change.NOTHING, "a closed candle never becomes forming again"
    assert numbers(candles.list) == [0, 1, 2, 3]
    assert candles.at(T + 1) is None


def test_a_commit_that_says_the_same_changes_nothing_but_the_revision() -> None:
    candles = loaded(row(0, 1))
    given_by(candles)
    assert candles.take(candle(1, 5)) is Change.NOTHING
    assert candles.list[1].rev == 5
    assert given_by(candles) == []


def test_the_first_candle_of_a_series_that_has_none_yet() -> None:
    candles = loaded([])
    assert candles.newest is None
    assert candles.take(candle(3, closed=False)) is Change.NEWEST
    assert given_by(candles) == [3]


def test_each_is_given_once_for_all_its_changes_since() -> None:
    candles = loaded(row(0, 2, closed=False))
    assert given_by(candles) == [0, 1, 2]
    candles.take(candle(2, 2, closed=False, close="2"))
    candles.take(candle(2, 3, close="3"))
    candles.take(candle(3, 4, closed=False))
    candles.take(candle(0, 5, close="5"))
    assert candles.due == T + 180
    assert given_by(candles) == [0, 2, 3]
    assert given_by(candles) == []


def test_a_load_gives_what_is_new_or_different() -> None:
    candles = loaded(row(0, 9))
    given_by(candles)
    changed = row(5, 12, rev=1)
    changed[1] = candle(6, close="7")
    candles.load(changed)
    assert given_by(candles) == [6, 10, 11, 12]
    assert [one.rev for one in candles.list] == [0] * 5 + [1] * 8, "what is kept gives way to any revision"
    assert candles.take(candle(2, 1, close="7")) is Change.OLDER


def test_what_does_not_join_a_load_is_dropped_and_is_due_elsewhere() -> None:
    candles = loaded(row(0, 9, closed=False))
    given_by(candles)
    assert candles.due == T + 600
    candles.load(row(20, 25))
    assert numbers(candles.list) == [20, 21, 22, 23, 24, 25]
    assert candles.is_due_dropped
    joined = loaded(row(0, 9))
    joined.load(row(10, 12))
    assert numbers(joined.list) == list(range(13))


def test_a_forming_candle_whose_close_was_missed_joins_nothing() -> None:
    candles = loaded(row(0, 9, closed=False))
    given_by(candles)
    candles.load(row(10, 12))
    assert numbers(candles.list) == [10, 11, 12]


def test_a_server_that_is_a_little_behind_takes_nothing_back() -> None:
    candles = loaded(row(0, 9, rev=50, closed=False))
    given_by(candles)
    candles.load(row(0, 7, rev=3, closed=False))
    assert numbers(candles.list) == list(range(10))
    assert [one.closed for one in candles.list] == [True] * 9 + [False]
    assert given_by(candles) == []
    assert candles.take(candle(7, 4, closed=False, close="0.2")) is Change.NOTHING
    assert candles.take(candle(7, 5, close="1.6")) is Change.OLDER
    assert candles.take(candle(9, 6, closed=False, close="1.6")) is Change.NEWEST


def test_a_server_that_is_far_behind_follows_another_market() -> None:
    candles = loaded(row(0, 20))
    candles.load(row(0, 19 - LATE))
    assert numbers(candles.list) == list(range(20 - LATE))
    candles.load(row(-50, -40, closed=False))
    assert numbers(candles.list) == list(range(-50, -39))


def test_an_answer_that_is_not_continuous_is_refused_whole() -> None:
    candles = loaded(row(0, 2))
    after_forming = [*row(0, 1, closed=False), candle(2)]
    for bad in ([candle(0), candle(0)], [candle(1), candle(0)], [candle(0), candle(2)], after_forming):
        with pytest.raises(FeedError) as caught:
            candles.load(bad)
        assert caught.value.code == "bad_answer"
    assert numbers(candles.list) == [0, 1, 2]
    candles.load([])
    assert numbers(candles.list) == [0, 1, 2]


def test_what_is_held_is_bounded_also_when_nobody_takes_it() -> None:
    candles = loaded(row(0, 99), most=100)
    for number in range(100, 5_000):
        candles.take(candle(number))
        assert len(candles.list) <= 110
        assert len(candles._changed) == len(candles._is_changed) <= 110
    assert candles.due == T
    assert candles.is_due_dropped
    assert given_by(candles) == numbers(candles.list)


def test_how_many_have_closed_since() -> None:
    candles = loaded(row(0, 9, closed=False))
    before = candles.list[-1]
    assert candles.closed_since(before) == 0
    candles.take(candle(9, 2))
    candles.take(candle(10, 3, closed=False))
    assert candles.closed_since(before) == 0, "the one that was forming was not missed whole"
    candles.load(row(1_000, 1_010))
    assert candles.closed_since(before) == 1_001


class Exchange:
    """A series as a server changes it, all that it has sent, and what it sends again."""

    def __init__(self) -> None:
        self.rev = self.changes = 1
        self.candles = row(0, 4, closed=False)
        self.sent: list[Candle] = list(self.candles)

    def change(self, place: int, *, closed: bool) -> None:
        self.rev += 1
        self.changes += 1  # of all lives: no candle becomes again what it was
        known = self.candles[place]
        made = msgspec.structs.replace(known, rev=self.rev, closed=closed or known.closed, close=Decimal(self.changes))
        self.candles[place] = made
        self.sent.append(made)

    def move(self) -> None:
        self.change(-1, closed=True)
        self.rev += 1
        self.candles.append(candle(len(self.candles), self.rev, closed=False))
        self.sent.append(self.candles[-1])

    def begin_life(self) -> None:
        """The same candles, with revisions that begin again."""
        self.rev = 1
        self.candles = [msgspec.structs.replace(one, rev=1) for one in self.candles]
        self.sent = list(self.candles)


ACTS = st.sampled_from(["updates", "moves", "corrects", "life", "old", "resends", "load", "take"])


@given(st.lists(st.tuples(ACTS, st.integers(0, 50))))
def test_whatever_comes_in_whatever_order(steps: list[tuple[str, int]]) -> None:
    exchange = Exchange()
    candles = loaded(exchange.candles, most=30)
    seen: dict[int, Candle] = {}
    fresh: list[int] = []

    def collect(count: int) -> None:
        for _ in range(count):
            if (changed := candles.pop_changed()) is None:
                break
            if changed.time not in seen:
                fresh.append(changed.time)
            assert changed != seen.get(changed.time)
            assert changed.closed or not (changed.time in seen and seen[changed.time].closed)
            seen[changed.time] = changed

    for act, number in steps:
        match act:
            case "updates":
                exchange.change(-1, closed=False)
            case "moves":
                exchange.move()
            case "corrects":
                exchange.change(max(-len(exchange.candles), -1 - number), closed=False)
            case "life":
                exchange.begin_life()
                candles.load(exchange.candles[-1 - number :])
            case "load":
                candles.load(exchange.candles[-1 - number :])
            case "take":
                collect(number)
            case "old":
                candles.take(exchange.sent[number % len(exchange.sent)])
            case _:  # all since some time again, in time order
                for one in sorted(set(exchange.sent[-1 - number :]), key=lambda one: (one.time, one.rev)):
                    if candles.take(one) is Change.HOLE:
                        candles.load(exchange.candles)
                        break
        assert all(after.time == before.time + 60 and before.closed for before, after in pairwise(candles.list))
    candles.load(exchange.candles[-20:])
    collect(1000)
    newest = candles.list[-20:]
    assert [one.close for one in newest] == [one.close for one in exchange.candles[-len(newest) :]]
    assert fresh == sorted(fresh)
    # What was never given was dropped, and is known to be due, or is older than the first load.
    assert all(time in seen for time in range(fresh[0], exchange.candles[-1].time, 60) if time >= candles.list[0].time)
