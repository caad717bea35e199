"""The other answers of the UDF door, shape by shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from candlesync.binance.rest import Rest
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.doors.udf.resolutions import RESOLUTIONS
from candlesync.doors.udf.routes import ServerTime
from candlesync.errors import UpstreamUnavailable
from tests.builders import candle, minute
from tests.web.builders import Web

FILTERS = [
    {"filterType": "PRICE_FILTER", "minPrice": "0.01000000", "tickSize": "0.01000000"},
    {"filterType": "LOT_SIZE", "stepSize": "0.00001000"},
]
FULL: dict[str, Any] = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "filters": FILTERS,
}


async def test_the_configuration() -> None:
    answer = await Web().get("/udf/config", Origin="https://chart.example")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.json == {
        "supports_search": True,
        "supports_group_request": False,
        "supports_marks": False,
        "supports_timescale_marks": False,
        "supports_time": True,
        "supported_resolutions": list(RESOLUTIONS),
        "exchanges": [{"value": "BINANCE", "name": "Binance", "desc": "Binance"}],
        "symbols_types": [{"name": "Crypto", "value": "crypto"}],
    }


@pytest.mark.parametrize("name", ["BTCUSDT", "btcusdt", "BINANCE:BTCUSDT"])
async def test_a_symbol(name: str) -> None:
    web = Web(listed=[FULL])
    answer = await web.get(f"/udf/symbols?symbol={name}")
    assert answer.status == 200
    assert answer.json == {
        "name": "BTCUSDT",
        "ticker": "BTCUSDT",
        "full_name": "BINANCE:BTCUSDT",
        "description": "BTC / USDT",
        "minmov": 1,
        "pricescale": 100,
        "volume_precision": 5,
        "currency_code": "USDT",
        "type": "crypto",
        "session": "24x7",
        "timezone": "Etc/UTC",
        "exchange": "BINANCE",
        "listed_exchange": "BINANCE",
        "format": "price",
        "has_intraday": True,
        "intraday_multipliers": ["1", "3", "5", "15", "30", "60", "120", "240", "360", "480", "720"],
        "has_seconds": True,
        "seconds_multipliers": ["1"],
        "has_daily": True,
        "daily_multipliers": ["1", "3"],
        "has_weekly_and_monthly": True,
        "weekly_multipliers": ["1"],
        "monthly_multipliers": ["1"],
        "supported_resolutions": list(RESOLUTIONS),
        "visible_plots_set": "ohlcv",
        "has_empty_bars": False,
        "data_status": "streaming",
    }
    assert web.supervisor.asked == [], "to look at a symbol starts nothing"


async def test_a_symbol_whose_steps_are_not_known_is_followed_to_see_its_decimals() -> None:
    web = Web(listed=["BTCUSDT"])
    web.topic([candle(minute(0)), candle(minute(1))])
    shown = (await web.get("/udf/symbols?symbol=BTCUSDT")).json
    assert (shown["minmov"], shown["pricescale"], shown["volume_precision"]) == (1, 100, 1)
    assert [str(series) for series in web.supervisor.asked] == ["BTCUSDT 1m"]


@pytest.mark.parametrize(
    ("question", "status", "says"),
    [
        ("symbols", 400, "symbol is missing"),
        ("symbols?symbol=", 400, "symbol is missing"),
        ("symbols?symbol=NOPE", 404, "Binance does not list NOPE"),
        ("symbols?symbol=A&symbol=B", 400, "symbol is given 2 times"),
        ("symbols?symbol=%C3%9F", 404, "no symbol is called"),
        ("search?limit=0", 400, "from 1 to 1000"),
        ("search?limit=1001", 400, "from 1 to 1000"),
        ("search?limit=x", 400, "whole number"),
        ("search?query=A&query=B", 400, "query is given 2 times"),
    ],
)
async def test_an_error_has_the_protocols_form(question: str, status: int, says: str) -> None:
    answer = await Web().get(f"/udf/{question}")
    assert answer.status == status
    assert list(answer.json) == ["s", "errmsg"]
    assert answer.json["s"] == "error"
    assert says in answer.json["errmsg"]


async def test_a_search() -> None:
    web = Web(listed=["ETHBTC", "BTCUSDT", "ETHUSDT"])
    answer = await web.get("/udf/search?query=btc&type=&exchange=&limit=30")
    assert answer.json == [
        {
            "symbol": symbol,
            "ticker": symbol,
            "full_name": f"BINANCE:{symbol}",
            "description": f"{symbol[:3]} / {symbol[3:]}",
            "exchange": "BINANCE",
            "type": "crypto",
        }
        for symbol in ("BTCUSDT", "ETHBTC")
    ]
    assert len((await web.get("/udf/search")).json) == 3
    assert len((await web.get("/udf/search?query=b&limit=1")).json) == 1


@pytest.mark.parametrize("question", ["symbols?symbol=BTCUSDT", "search?query=btc", "time"])
async def test_while_binance_is_away(question: str, autojump_clock: MockClock) -> None:
    answer = await Web(binance_status=503).get(f"/udf/{question}")
    assert answer.status == 503
    assert answer.json["s"] == "error"
    assert int(answer.headers["Retry-After"]) > 0


async def test_the_time_is_the_exchanges_and_asked_of_it_once_a_second(autojump_clock: MockClock) -> None:
    web = Web()
    first = await web.get("/udf/time")
    assert (first.status, first.body) == (200, b"1700000000")
    assert first.headers["Content-Type"].startswith("text/plain")
    await trio.sleep(0.9)
    assert (await web.get("/udf/time")).body == b"1700000000"
    await trio.sleep(61.0)
    assert (await web.get("/udf/time")).body == b"1700000061"


async def test_who_waits_for_the_time_together_is_told_together(autojump_clock: MockClock) -> None:
    async def silent(_request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    client = httpx.AsyncClient(transport=httpx.MockTransport(silent), base_url="http://binance")
    time = ServerTime(Rest(client, WeightBudget(WeightSettings(spread=0))))
    told: list[float] = []

    async def ask() -> None:
        with pytest.raises(UpstreamUnavailable):
            await time.now()
        told.append(trio.current_time())

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert len(told) == 20
    assert max(told) - started < ServerTime.PATIENCE + 1
    await trio.sleep(ServerTime.OLDEST)
    await ask()
    assert told[-1] - max(told[:-1]) > ServerTime.PATIENCE, "it is asked again"


@pytest.mark.parametrize("name", ["marks", "timescale_marks", "quotes", "symbol_info"])
async def test_what_is_not_supported_is_not_there(name: str) -> None:
    assert (await Web().get(f"/udf/{name}?symbol=BTCUSDT")).status == 404
