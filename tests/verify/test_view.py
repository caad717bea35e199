"""What a view of a series must never show, and how it compares with Binance's rows."""

from __future__ import annotations

import msgspec
import pytest

from candlesync.core.candle import Candle
from candlesync.verify.findings import CannotCheck, Difference, Shown
from candlesync.verify.reading import read_candle, read_json
from candlesync.verify.view import View, compare
from tests.builders import BTC, flat, minute, minutes


def shown(candle: Candle, rev: int = 1, position: str | None = "p") -> Shown:
    values = (candle.open, candle.high, candle.low, candle.close, candle.volume)
    return Shown(candle.open_time, values, candle.closed, candle.filled, rev, position)


def view_of(*candles: Candle) -> View:
    view = View(BTC)
    view.load([shown(candle) for candle in candles])
    return view


def fields(differences: list[Difference]) -> list[tuple[int | None, str]]:
    return [(None if one.time is None else one.time // 60_000 - minute(0) // 60_000, one.field) for one in differences]


def found(view: View, *rows: Candle) -> list[tuple[int | None, str]]:
    return fields([*view.differences, *compare(BTC, view, rows)])


FORMING = msgspec.structs.replace(minutes(5, 5)[0], closed=False)


def test_what_is_right_has_no_difference() -> None:
    view = view_of(*minutes(0, 4))
    view.take(shown(FORMING, rev=2))
    view.take(shown(minutes(5, 5)[0], rev=3))
    view.take(shown(minutes(3, 3)[0], rev=4))
    view.end()
    assert found(view, *minutes(0, 5), FORMING) == []


def test_a_hole() -> None:
    assert found(view_of(*minutes(0, 2), *minutes(5, 6)), *minutes(0, 6)) == [
        (3, "missing"),
        (3, "missing"),
        (4, "missing"),
    ]


def test_a_live_hole() -> None:
    view = view_of(*minutes(0, 2))
    view.take(shown(minutes(4, 4)[0], rev=2))
    assert (3, "missing") in found(view)


def test_out_of_order_and_off_the_grid() -> None:
    assert (1, "order") in found(view_of(*minutes(0, 2), *minutes(1, 1)))
    odd = msgspec.structs.replace(minutes(3, 3)[0], open_time=minute(3) + 5)
    assert "time" in [field for _, field in found(view_of(*minutes(0, 2), odd))]


@pytest.mark.parametrize("name", ["open", "high", "low", "close", "volume"])
def test_a_wrong_digit(name: str) -> None:
    row = minutes(1, 1)[0]
    wrong = msgspec.structs.replace(row, **{name: getattr(row, name)[:-1] + "7"})
    assert found(view_of(*minutes(0, 0), wrong, *minutes(2, 3)), *minutes(0, 3)) == [(1, name)]


def test_another_number_of_digits_is_a_difference() -> None:
    wrong = msgspec.structs.replace(minutes(1, 1)[0], close="37001.0")
    assert found(view_of(wrong, *minutes(2, 2)), *minutes(1, 2)) == [(1, "close")]


def test_rows_that_are_not_final_say_nothing() -> None:
    row = msgspec.structs.replace(minutes(2, 2)[0], closed=False, close="1.00000000")
    assert found(view_of(*minutes(0, 2)), *minutes(0, 1), row) == []


def test_revisions_that_go_back_or_stand_for_two_things() -> None:
    view = view_of(*minutes(0, 2))
    view.take(shown(FORMING, rev=7))
    view.take(shown(FORMING, rev=6))
    assert fields(view.differences)[-1] == (5, "rev")
    view = view_of(*minutes(4, 4))
    view.take(shown(FORMING, rev=7))
    view.take(shown(minutes(5, 5)[0], rev=7))
    assert fields(view.differences) == [(5, "rev")]


def test_closed_is_for_good_and_comes_before_the_next() -> None:
    view = view_of(*minutes(0, 5))
    view.take(shown(FORMING, rev=2))
    assert fields(view.differences) == [(5, "closed")]
    view = view_of(*minutes(0, 4))
    view.take(shown(FORMING, rev=2))
    view.take(shown(minutes(6, 6)[0], rev=3))
    assert fields(view.differences) == [(5, "closed")]


def test_positions_end_what_is_sent_together() -> None:
    view = view_of(*minutes(0, 4))
    for number in (2, 3):
        view.take(shown(minutes(number, number)[0], rev=2, position=None))
    view.take(shown(minutes(4, 4)[0], rev=2))
    view.end()
    assert view.differences == []
    view.take(shown(minutes(5, 5)[0], rev=3, position=None))
    view.take(shown(minutes(5, 5)[0], rev=3, position="p"))
    assert fields(view.differences) == [(5, "position")]
    view.take(shown(minutes(6, 6)[0], rev=4, position=None))
    view.end()
    assert fields(view.differences)[1:] == [(6, "position")]


def test_fills_stand_where_binance_has_nothing_and_are_flat() -> None:
    before = minutes(1, 1)[0]
    fill = flat(minute(2), before.close)
    rows = [*minutes(0, 1), *minutes(3, 4)]
    assert found(view_of(*minutes(0, 1), fill, *minutes(3, 4)), *rows) == []
    assert found(view_of(*minutes(0, 1), fill, *minutes(3, 4)), *minutes(0, 4)) == [(2, "filled")], "a false fill"
    wrong = msgspec.structs.replace(fill, close="1.00000000")
    assert found(view_of(*minutes(0, 1), wrong, *minutes(3, 4)), *rows) == [(2, "close")]
    traded = msgspec.structs.replace(fill, volume="0.10000000")
    assert found(view_of(*minutes(0, 1), traded, *minutes(3, 4)), *rows) == [(2, "volume")]
    assert found(view_of(*minutes(0, 4)), *rows) == [(2, "filled")], "made up, and not marked"


CANDLE = (
    '{"symbol":"BTCUSDT","interval":"1m","time":60,"open":1.10,"high":2,"low":1,"close":1.50,"volume":0,'
    '"closed":true,"rev":3}'
)


def test_numbers_are_read_as_they_stand() -> None:
    assert read_candle(read_json(CANDLE), BTC) == Shown(60_000, ("1.10", "2", "1", "1.50", "0"), True, False, 3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"BTCUSDT"', '"ETHUSDT"'),
        ('"1m"', '"1M"'),
        ("1.10", '"1.10"'),
        ("1.10", "NaN"),
        ("1.10", "1e3"),
        ("true", "1"),
        (',"rev":3', ""),
        ('"time":60', '"time":60.5'),
    ],
)
def test_what_is_no_candle_of_the_series_is_refused(old: str, new: str) -> None:
    with pytest.raises(CannotCheck, match="no candle of BTCUSDT 1m"):
        read_candle(read_json(CANDLE.replace(old, new)), BTC)
