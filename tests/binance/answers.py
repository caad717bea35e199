"""A small REST API of Binance's for the tests of what asks there, and what they ask it with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx
import trio

from candlesync.binance.rest import Rest
from candlesync.binance.rest_client import RestSettings
from candlesync.binance.weight import WeightBudget, WeightSettings
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval

MINUTE = 60_000
SERIES = Series("BTCUSDT", Interval.M1)
INVALID_SYMBOL = {"code": -1121, "msg": "Invalid symbol."}
EXCHANGE_INFO = {
    "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 1200}],
    "symbols": [{"symbol": "BTCUSDT"}, {"symbol": 5}],
}

Answer = httpx.Response | Exception | Callable[[httpx.Request], Awaitable[httpx.Response]]


def row(open_time: int) -> list[object]:
    return [open_time, "2", "3", "1", "2", "10", open_time + MINUTE - 1, "20", 7, "4", "8", "0"]


class Binance:
    """As much of Binance's REST API as its documentation says of klines, with answers of the test's own before it."""

    def __init__(self, *first: Answer, minutes: int = 0) -> None:
        self.rows = [row(number * MINUTE) for number in range(minutes)]
        self.first = list(first)
        self.asked: list[tuple[float, httpx.Request]] = []
        self.used = 0
        self.at_once = 0
        self.most_at_once = 0
        self.delay = 0.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((trio.current_time(), request))
        self.used += 20 if request.url.path.endswith("exchangeInfo") else 2
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await trio.sleep(self.delay)
            answer = self.first.pop(0) if self.first else self.answer(request)
            if isinstance(answer, Exception):
                raise answer
            if not isinstance(answer, httpx.Response):
                answer = await answer(request)
        finally:
            self.at_once -= 1
        answer.headers["X-MBX-USED-WEIGHT-1M"] = str(self.used)
        return answer

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("exchangeInfo"):
            return httpx.Response(200, json=EXCHANGE_INFO)
        query = request.url.params
        rows = [row for row in self.rows if isinstance(row[0], int) and row[0] <= int(query.get("endTime", 10**15))]
        if "startTime" in query:
            rows = [row for row in rows if isinstance(row[0], int) and row[0] >= int(query["startTime"])]
            return httpx.Response(200, json=rows[: int(query["limit"])])
        return httpx.Response(200, json=rows[-int(query["limit"]) :])

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.asked]


def rest_of(binance: Binance, settings: RestSettings | None = None, budget: WeightBudget | None = None) -> Rest:
    """A `Rest` whose pauses are the longest they may be, but for a hair."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(binance), base_url="http://binance")
    budget = budget or WeightBudget(WeightSettings(spread=0))
    return Rest(client, budget, settings, jitter=lambda: 1.0)


def opens(candles: tuple[Candle, ...]) -> list[int]:
    return [candle.open_time // MINUTE for candle in candles]


async def hang(request: httpx.Request) -> httpx.Response:
    await trio.sleep_forever()
    raise AssertionError("unreachable")
