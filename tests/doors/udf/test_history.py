"""``/udf/history``: which bars are given, against a model, over what is stored and what is older."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.doors.udf.parameters import MOST_BARS
from candlesync.errors import TooMany, UpstreamUnavailable
from tests.builders import T0, candle, flat, forming, minute, minutes
from tests.history import Exchange
from tests.web.builders import Web

OLDEST, STORED, OUTAGE = -2_500, 0, range(-1_200, -1_190)
NEWEST = 30


def whole_web() -> tuple[Web, Exchange]:
    """History of 2,500 minutes before the store's, with an outage; in the store 30 minutes, and one that is forming."""
    exchange = Exchange(OLDEST, NEWEST, missing=OUTAGE)
    web = Web(klines=exchange)
    web.topic([*minutes(STORED, NEWEST - 1), forming(minute(NEWEST))])
    return web, exchange


def path(**parameters: object) -> str:
    given = {"symbol": "BTCUSDT", "resolution": "1"} | parameters
    return "/udf/history?" + "&".join(f"{name.rstrip('_')}={value}" for name, value in given.items())


def at(number: int) -> int:
    """The second in which a minute opens."""
    return minute(number) // 1000


def expected(start: int | None, end: int, countback: int | None) -> dict[str, Any]:
    """The answer in words of the documentation: bars in [from, to); with countback, so many before to."""
    times = [at(number) for number in range(OLDEST, NEWEST + 1)]
    before = [time for time in times if time < end]
    bars = before[-countback:] if countback else [time for time in before if start is None or time >= start]
    bars = bars[-MOST_BARS:]
    if bars:
        return {"s": "ok", "t": bars}
    return {"s": "no_data"} | ({"nextTime": before[-1]} if before else {})


seconds = st.integers(at(OLDEST) - 4_000, at(NEWEST) + 4_000) | st.integers(at(-40), at(NEWEST) + 200)
edges = st.builds(
    lambda number, shift: at(number) + shift,
    st.sampled_from([OLDEST, -1_200, -1_190, -1, STORED, 1, NEWEST - 1, NEWEST, NEWEST + 1]),
    st.sampled_from([-60, -1, 0, 1, 60]),
)
moments = seconds | edges | st.sampled_from([-(10**10), 0, 10**10])


questions = st.tuples(
    st.none() | moments, moments, st.none() | st.integers(0, 40) | st.sampled_from([1_500, 5_000, 10**6])
)


@given(st.lists(questions, min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_it_gives_the_bars_of_the_range(asked: list[tuple[int | None, int, int | None]]) -> None:
    async def ask() -> None:
        web, _ = whole_web()
        for start, end, countback in asked:
            given = {"from_": start, "to": end, "countback": countback}
            answer = await web.get(path(**{name: value for name, value in given.items() if value is not None}))
            assert answer.status == 200
            shown, wanted = answer.json, expected(start, end, countback)
            assert {name: shown[name] for name in shown if name in ("s", "t", "nextTime")} == wanted
            assert list(shown) == (["s", "t", "o", "h", "l", "c", "v"] if wanted["s"] == "ok" else list(wanted))
            assert {len(shown[name]) for name in "tohlcv" if name in shown} <= {len(wanted.get("t", []))}

    trio.run(ask, clock=MockClock(autojump_threshold=0))


async def test_numbers_are_binances_digit_for_digit_and_filled_ones_are_among_them() -> None:
    web = Web()
    web.topic([candle(minute(0)), candle(minute(1)), flat(minute(2)), forming(minute(3), "37013.10000000", trades=3)])
    answer = await web.get(path(from_=at(0), to=at(4)))
    assert answer.body == (
        b'{"s":"ok","t":[1700000040,1700000100,1700000160,1700000220],'
        b'"o":[37000.00000000,37000.00000000,37012.31000000,37000.00000000],'
        b'"h":[37100.00000000,37100.00000000,37012.31000000,37100.00000000],'
        b'"l":[36900.00000000,36900.00000000,37012.31000000,36900.00000000],'
        b'"c":[37012.31000000,37012.31000000,37012.31000000,37013.10000000],'
        b'"v":[10.50000000,10.50000000,0.00000000,3.50000000]}'
    )
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Candlesync-State"] == "live"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert json.loads(answer.body, parse_float=Decimal)["c"][0] == Decimal("37012.31")


async def test_what_is_all_in_the_store_costs_binance_nothing() -> None:
    web, exchange = whole_web()
    for question in ({"from_": at(0), "to": at(40)}, {"from_": 0, "to": at(40), "countback": 31}):
        assert len((await web.get(path(**question))).json["t"]) == 31
    assert (await web.get(path(from_=at(NEWEST) + 1, to=at(NEWEST) + 3))).json["nextTime"] == at(NEWEST)
    assert exchange.asked == []


async def test_a_long_range_is_answered_with_the_newest_that_an_answer_holds() -> None:
    exchange = Exchange(-7_000, NEWEST)
    web = Web(klines=exchange)
    web.topic(minutes(STORED, NEWEST))
    asked = at(NEWEST + 1)
    shown = (await web.get(path(from_=0, to=asked))).json["t"]
    assert shown == [at(number) for number in range(NEWEST + 1 - MOST_BARS, NEWEST + 1)]
    # And so the library's adapter goes on.
    more = (await web.get(path(from_=0, to=shown[0], countback=0))).json["t"]
    assert more == [at(number) for number in range(-7_000, NEWEST + 1 - MOST_BARS)]
    assert len(exchange.asked) <= 10


async def test_while_binance_cannot_be_asked_nothing_short_is_given() -> None:
    web, exchange = whole_web()
    exchange.error = UpstreamUnavailable("Binance is away", retry_after=7.0)
    answer = await web.get(path(from_=at(-1), to=at(40)))
    assert (answer.status, answer.json) == (503, {"s": "error", "errmsg": "Binance is away"})
    assert answer.headers["Retry-After"] == "7"
    assert (await web.get(path(from_=at(0), to=at(40)))).status == 200


async def test_a_slow_binance_is_waited_for_so_long_and_its_pages_are_kept(autojump_clock: MockClock) -> None:
    web = Web(klines=(exchange := Exchange(-6_000, NEWEST)))
    web.topic(minutes(STORED, NEWEST))
    exchange.delay = 9.0
    async with trio.open_nursery() as nursery:
        await nursery.start(web.archive.run)
        answers = [await web.get(path(from_=0, to=at(NEWEST), countback=4_000)) for _ in range(2)]
        nursery.cancel_scope.cancel()
    assert [answer.status for answer in answers] == [503, 200]
    assert "30 s" in answers[0].json["errmsg"]
    assert trio.current_time() < 60


@pytest.mark.parametrize(
    ("question", "status", "says"),
    [
        ("", 400, "symbol is missing"),
        ("symbol=BTCUSDT", 400, "resolution is missing"),
        ("symbol=BTCUSDT&resolution=", 400, "resolution is missing"),
        ("symbol=BTCUSDT&resolution=1m&from=1&to=2", 400, "one of 1S, 1, 3, 5"),
        ("symbol=BTCUSDT&resolution=2&from=1&to=2", 400, "resolution must be"),
        ("symbol=BTCUSDT&resolution=1&from=1", 400, "to is missing"),
        ("symbol=BTCUSDT&resolution=1&from=1&countback=5", 400, "to is missing"),
        ("symbol=BTCUSDT&resolution=1&from=1&to=1700000000000", 400, "UNIX seconds"),
        ("symbol=BTCUSDT&resolution=1&from=1.5&to=2", 400, "UNIX seconds"),
        ("symbol=BTCUSDT&resolution=1&from=&to=2", 400, "UNIX seconds"),
        ("symbol=BTCUSDT&resolution=1&from=1&to=2&countback=-1", 400, "whole number"),
        ("symbol=BTCUSDT&resolution=1&from=1&to=2&to=3", 400, "to is given 2 times"),
        ("symbol=NOPE&resolution=1&from=1&to=2", 404, "NOPE"),
        ("symbol=NYSE:MSFT&resolution=1&from=1&to=2", 404, "NYSE:MSFT"),
        ("symbol=B%0d%0aX&resolution=1&from=1&to=2", 404, "no symbol is called"),
    ],
)
async def test_what_is_wrong_with_a_question_is_said(question: str, status: int, says: str) -> None:
    web = Web()
    web.topic()
    answer = await web.get(f"/udf/history?{question}")
    assert answer.status == status
    assert list(answer.json) == ["s", "errmsg"]
    assert answer.json["s"] == "error"
    assert says in answer.json["errmsg"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_limit_says_when_to_come_back() -> None:
    web = Web()
    web.supervisor.refusals["BTCUSDT"] = TooMany("many new series have just been started", retry_after=2.5)
    answer = await web.get(path(from_=1, to=2))
    assert (answer.status, answer.json["s"], answer.headers["Retry-After"]) == (429, "error", "3")


@pytest.mark.parametrize("symbol", ["btcusdt", "BINANCE:BTCUSDT", "binance:btcusdt"])
@pytest.mark.parametrize("resolution", ["D", "1D"])
async def test_a_symbol_may_be_written_as_tradingview_does(symbol: str, resolution: str) -> None:
    web = Web()
    await web.get(path(symbol=symbol, resolution=resolution, from_=1, to=2))
    assert [str(series) for series in web.supervisor.asked] == ["BTCUSDT 1d"]


def test_the_first_minute_is_where_the_model_has_it() -> None:
    assert at(0) * 1000 == T0
