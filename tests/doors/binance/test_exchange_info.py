"""exchangeInfo: all fields as Binance has them, for the weight of one question a minute."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from candlesync.binance.public_paths import SPOT_API
from candlesync.binance.rest import PassedOn
from candlesync.doors.binance.exchange_info import ExchangeInfo
from candlesync.doors.binance.passing import Passing
from candlesync.errors import UpstreamUnavailable
from tests.builders import shared_data
from tests.doors.binance.upstream import Upstream

BODY = (
    b'{ "serverTime":1,"rateLimits":[],"exchangeFilters":[], "symbols":[{"symbol":"BTCUSDT","x":1.10},'
    b'{"symbol":"ETHUSDT"}, {"symbol":"BNBBTC", "new":{"a":null}}],"sors":[]}'
)


@asynccontextmanager
async def opened(body: bytes = BODY) -> AsyncIterator[tuple[ExchangeInfo, Upstream]]:
    upstream = Upstream()
    upstream.answer = PassedOn(200, body)
    passing = Passing(upstream)
    async with trio.open_nursery() as nursery:
        await nursery.start(passing.run)
        yield ExchangeInfo(SPOT_API.at("exchangeInfo"), passing), upstream
        nursery.cancel_scope.cancel()


async def ask(info: ExchangeInfo, **values: str) -> PassedOn:
    answer, compressed = await info.answer(values, in_microseconds=False)
    assert compressed is None or gzip.decompress(compressed) == answer.body
    return answer


async def test_the_whole_answer_and_single_symbols_cost_one_question() -> None:
    async with opened() as (info, upstream):
        assert (await ask(info)).body == BODY
        whole = json.loads(BODY)
        one = await ask(info, symbol="BNBBTC")
        assert one.status == 200
        assert b'{"symbol":"BNBBTC", "new":{"a":null}}' in one.body
        assert json.loads(one.body) == {**whole, "symbols": whole["symbols"][2:]}
        two = json.loads((await ask(info, symbols='["ETHUSDT","BTCUSDT"]')).body)
        assert two == {**whole, "symbols": whole["symbols"][:2]}
        assert b"1.10" in (await ask(info, symbol="BTCUSDT")).body
        assert len(upstream.asked) == 1
        assert upstream.asked[0]["weight"] == 20


@pytest.mark.parametrize(
    "values",
    [
        {"symbol": "NOSUCH"},
        {"symbols": '["BTCUSDT","NOSUCH"]'},
        {"symbols": '["BTCUSDT","BTCUSDT"]'},
        {"symbols": "[]"},
        {"symbol": "BTCUSDT", "symbols": '["BTCUSDT"]'},
        {"permissions": "SPOT"},
        {"symbolStatus": "BREAK"},
        {"symbol": "BTCUSDT", "showPermissionSets": "false"},
    ],
)
async def test_what_the_whole_answer_does_not_settle_is_passed_on(values: dict[str, str]) -> None:
    async with opened() as (info, upstream):
        await ask(info)
        upstream.answer = PassedOn(400, b'{"code":-1121,"msg":"Invalid symbol."}')
        assert await ask(info, **values) == upstream.answer
        assert upstream.asked[1]["params"] == values


async def test_the_last_answer_serves_while_binance_cannot_be_asked(mock_clock: MockClock) -> None:
    async with opened() as (info, upstream):
        await ask(info)
        mock_clock.jump(120)
        upstream.error = UpstreamUnavailable("away")
        assert (await ask(info)).body == BODY
        assert json.loads((await ask(info, symbol="ETHUSDT")).body)["symbols"] == [{"symbol": "ETHUSDT"}]
        mock_clock.jump(3_600)
        with pytest.raises(UpstreamUnavailable):
            await ask(info)
        upstream.error = None
        upstream.answer = PassedOn(200, BODY.replace(b":1,", b":2,"))
        assert json.loads((await ask(info)).body)["serverTime"] == 2
        assert json.loads((await ask(info, symbol="ETHUSDT")).body)["serverTime"] == 2


@pytest.mark.parametrize("body", [b"[]", b'{"symbols":5}', b'{"symbols":[{"no":"name"}]}', b'"x"'])
async def test_an_answer_of_another_form_is_only_passed_on(body: bytes) -> None:
    async with opened(body) as (info, _):
        assert await ask(info) == PassedOn(200, body)
        assert await ask(info, symbol="BTCUSDT") == PassedOn(200, body)


async def test_a_recorded_answer_symbol_by_symbol() -> None:
    path = shared_data() / "rest/exchangeInfo_20211012_full.json.gz"
    body = gzip.decompress(path.read_bytes())
    symbols = json.loads(body)["symbols"]
    assert len(symbols) == 1_695
    async with opened(body) as (info, upstream):
        for symbol in symbols[::100]:
            assert json.loads((await ask(info, symbol=symbol["symbol"])).body)["symbols"] == [symbol]
        assert len(upstream.asked) == 1
