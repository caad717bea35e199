"""``before=`` beyond what the store holds: one answer, joined, in every form."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import pytest

from candlesync.errors import UpstreamUnavailable
from tests.builders import minute, minutes
from tests.history import Exchange
from tests.web.builders import Web, commit


async def test_a_chart_scrolls_back_to_the_first_candle_of_all() -> None:
    exchange = Exchange(-3_500, 30, missing=range(-2_000, -1_990))
    web = Web(klines=exchange)
    web.topic(minutes(0, 29))
    shown = (await web.get("/candles/BTCUSDT/1m")).json
    assert len(shown) == 30, "without before= it is what the store has"
    while True:
        answer = await web.get(f"/candles/BTCUSDT/1m?before={shown[0]['time']}")
        assert answer.status == 200
        assert "Candlesync-Position" not in answer.headers
        if not answer.json:
            break
        shown = answer.json + shown
    assert [candle["time"] for candle in shown] == [minute(number) // 1000 for number in range(-3_500, 30)]
    assert [candle["time"] for candle in shown if "filled" in candle] == [
        minute(number) // 1000 for number in range(-2_000, -1_990)
    ]
    assert {candle["rev"] for candle in shown} == {0, 1}


async def test_a_page_may_lie_partly_in_the_store() -> None:
    web = Web(klines=Exchange(-3_500, 30))
    topic = web.topic(minutes(0, 29))
    answer = await web.get(f"/candles/BTCUSDT/1m?limit=20&before={minute(8) // 1000}")
    times = [candle["time"] for candle in answer.json]
    assert times == [minute(number) // 1000 for number in range(-12, 8)]
    assert [candle["rev"] for candle in answer.json] == [0] * 12 + [1] * 8
    commit(topic, *minutes(30, 31))
    assert (await web.get(f"/candles/BTCUSDT/1m?limit=20&before={minute(8) // 1000}")).body == answer.body


async def test_it_has_an_etag_and_goes_in_gzip() -> None:
    web = Web(klines=Exchange(-3_500, 30))
    web.topic(minutes(0, 29))
    path = f"/candles/BTCUSDT/1m?before={minute(-10) // 1000}"
    plain, small = await web.get(path), await web.get(path, Accept_Encoding="gzip")
    assert gzip.decompress(small.body) == plain.body
    assert all(after["time"] - before["time"] == 60 for before, after in pairwise(json.loads(plain.body)))
    assert len(plain.json) == 1000
    again = await web.get(path, If_None_Match=plain.headers["ETag"])
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", plain.headers["ETag"])
    assert plain.headers["ETag"] != small.headers["ETag"]
    assert (await web.request("HEAD", path)).headers["ETag"] == plain.headers["ETag"]


@pytest.mark.parametrize("before", [0, 1, 60])
async def test_before_everything_there_is_nothing(before: int) -> None:
    web = Web(klines=Exchange(-3_500, 30))
    web.topic(minutes(0, 29))
    assert (await web.get(f"/candles/BTCUSDT/1m?before={before}")).json == []


async def test_when_binance_is_away_it_says_so() -> None:
    exchange = Exchange(-3_500, 30)
    exchange.error = UpstreamUnavailable("Binance is away", retry_after=7.0)
    web = Web(klines=exchange)
    web.topic(minutes(0, 29))
    answer = await web.get(f"/candles/BTCUSDT/1m?before={minute(10) // 1000}")
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "upstream_unavailable", "7")
    assert len((await web.get(f"/candles/BTCUSDT/1m?limit=5&before={minute(10) // 1000}")).json) == 5
