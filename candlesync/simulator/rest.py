"""The REST API (rest-api.md): ``klines``, ``exchangeInfo``, ``time``, ``ping``, on spot `tickers`; and their faults.

Not simulated: times in microseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple, assert_never, get_args

import msgspec
import trio

from candlesync.core.interval import Interval
from candlesync.simulator.clock import MarketClock
from candlesync.simulator.faults import (
    BodyShape,
    FaultPlan,
    Missing,
    RestBanned,
    RestBehind,
    RestBlocked,
    RestDown,
    RestGarbage,
    RestLimited,
)
from candlesync.simulator.market import Market
from candlesync.simulator.parameters import BadRequest, Parameters, malformed
from candlesync.simulator.rewriting import rewrite
from candlesync.simulator.symbols import contract_description, description
from candlesync.simulator.tickers import (
    Tickers,
    Values,
    weight_of_day,
    weight_of_depth,
    weight_of_each,
    weight_of_price,
)
from candlesync.simulator.venue import Venue
from candlesync.simulator.weight import RequestWeight
from candlesync.simulator.zones import offset_of, zoned_page

Query = Sequence[tuple[str, str]]

_BODY_SHAPES: tuple[BodyShape, ...] = get_args(BodyShape)


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str]


class Rest:
    """Answers requests from the market as it is now."""

    def __init__(
        self, venue: Venue, market: Market, clock: MarketClock, faults: FaultPlan, weight: RequestWeight
    ) -> None:
        self._venue = venue
        self._market = market
        self._clock = clock
        self._faults = faults
        self._weight = weight
        self._turn = count()
        self._endpoints: dict[str, tuple[Callable[[Values], int], Callable[[Query], bytes]]] = {
            f"{venue.rest}/ping": (lambda _: 1, self._ping),
            f"{venue.rest}/time": (lambda _: 1, self._time),
            f"{venue.rest}/exchangeInfo": (lambda _: venue.exchange_info_weight, self._exchange_info),
            f"{venue.rest}/klines": (self._klines_weight, self._klines),
        }
        tickers = Tickers(market)
        self._endpoints |= self._of_spot(tickers) if venue.rest == "/api/v3" else self._of_futures(tickers)

    def _of_spot(self, tickers: Tickers) -> dict[str, tuple[Callable[[Values], int], Callable[[Query], bytes]]]:
        """What only the spot venue is simulated with."""
        return {
            "/api/v3/uiKlines": (self._klines_weight, self._klines),
            "/api/v3/ticker/price": (weight_of_price, self._some(tickers.price)),
            "/api/v3/ticker/bookTicker": (weight_of_price, self._some(tickers.book)),
            "/api/v3/ticker/24hr": (weight_of_day, self._some(tickers.day, "type")),
            "/api/v3/ticker": (weight_of_each(4, 200), self._some(tickers.rolling, "windowSize", "type")),
            "/api/v3/ticker/tradingDay": (
                weight_of_each(4, 200),
                self._some(tickers.trading_day, "timeZone", "type"),
            ),
            "/api/v3/avgPrice": (lambda _: 2, self._one(tickers.average)),
            "/api/v3/depth": (weight_of_depth, self._one(tickers.depth, "limit")),
            "/api/v3/trades": (lambda _: 25, self._one(tickers.trades, "limit")),
            "/api/v3/historicalTrades": (lambda _: 25, self._one(tickers.trades, "limit", "fromId")),
            "/api/v3/aggTrades": (lambda _: 4, self._one(tickers.aggregate_trades, "limit")),
        }

    def _of_futures(self, tickers: Tickers) -> dict[str, tuple[Callable[[Values], int], Callable[[Query], bytes]]]:
        """What only the futures venue is simulated with: as on spot, without the ``time`` that prices have there."""
        one = ("symbol",)

        def by_symbol(single: int, every: int) -> Callable[[Values], int]:
            return lambda values: single if "symbol" in values else every

        def some(tell: Callable[[Parameters, int], bytes]) -> Callable[[Query], bytes]:
            return lambda query: tell(Parameters(query, optional=one), self._clock.now())

        return {
            "/fapi/v1/ticker/price": (by_symbol(1, 2), some(tickers.price)),
            "/fapi/v1/ticker/bookTicker": (by_symbol(2, 5), some(tickers.book)),
            "/fapi/v1/ticker/24hr": (by_symbol(1, 40), some(tickers.day)),
            "/fapi/v1/trades": (lambda _: 5, self._one(tickers.trades, "limit")),
            "/fapi/v1/aggTrades": (lambda _: 20, self._one(tickers.aggregate_trades, "limit")),
        }

    @property
    def paths(self) -> list[str]:
        """The paths that there are."""
        return list(self._endpoints)

    async def answer(self, path: str, query: Query) -> Answer:
        """The answer to ``GET path?query``, after as long as the faults hold it back."""
        symbol = dict(query).get("symbol")
        broken = await self._broken(path, symbol)
        if broken is not None:
            return broken
        weight, endpoint = self._endpoints[path]
        refusal = self._weight.charge(weight(dict(query)))
        if refusal is not None:
            return self._limited(refusal.status, refusal.retry_after)
        try:
            status, body = 200, endpoint(query)
        except BadRequest as error:
            status, body = 400, _error(error.code, error.message)
        for fault in self._faults.active(RestGarbage, symbol):
            if fault.path in (None, path):
                status, body = 200, _spoiled(body, fault.shape or _BODY_SHAPES[next(self._turn) % len(_BODY_SHAPES)])
        return self._weighed(status, body)

    async def _broken(self, path: str, symbol: str | None) -> Answer | None:
        for window in self._faults.windows(RestDown, symbol):
            fault = window.fault
            if not isinstance(fault, RestDown) or fault.path not in (None, path):
                continue
            if fault.hang:
                await self._faults.end(window)
                return await self._broken(path, symbol)
            await trio.sleep(fault.delay)
            if fault.status is not None:
                return Answer(fault.status, b"<html><body>Service unavailable</body></html>", {})
        return self._turned_away(path, symbol)

    def _turned_away(self, path: str, symbol: str | None) -> Answer | None:
        for blocked in self._faults.active(RestBlocked, symbol):
            if blocked.path in (None, path):
                message = "Service unavailable from a restricted location according to 'b. Eligibility'."
                return Answer(451, _error(0, message), {})
        for banned in self._faults.active(RestBanned, symbol):
            if banned.path in (None, path):
                return self._limited(418, banned.retry_after)
        for limited in self._faults.active(RestLimited, symbol):
            if limited.path in (None, path):
                return self._limited(429, limited.retry_after)
        return None

    def _limited(self, status: int, retry_after: int | None) -> Answer:
        if status == 418:
            until = self._clock.now() + round(self._clock.milliseconds(retry_after or 0))
            message = (
                f"Way too much request weight used; IP banned until {until}. "
                "Please use WebSocket Streams for live updates to avoid bans."
            )
        else:
            message = (
                f"Too much request weight used; current limit is {self._weight.limit} request weight per 1 MINUTE. "
                "Please use WebSocket Streams for live updates to avoid polling the API."
            )
        answer = self._weighed(status, _error(-1003, message))
        if retry_after is not None:
            answer.headers["Retry-After"] = str(retry_after)
        return answer

    def _weighed(self, status: int, body: bytes) -> Answer:
        used = str(self._weight.used)
        return Answer(status, body, {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used})

    def _ping(self, query: Query) -> bytes:
        Parameters(query)
        return b"{}"

    def _time(self, query: Query) -> bytes:
        Parameters(query)
        return msgspec.json.encode({"serverTime": self._clock.now()})

    def _klines_weight(self, values: Values) -> int:
        limit = values.get("limit", "")
        return self._venue.klines_weight(int(limit) if limit.isascii() and limit.isdigit() else 500)

    def _some(self, tell: Callable[[Parameters, int], bytes], *optional: str) -> Callable[[Query], bytes]:
        """An endpoint for one symbol, some or all."""
        known = ("symbol", "symbols", *optional)
        return lambda query: tell(Parameters(query, optional=known), self._clock.now())

    def _one(self, tell: Callable[[Parameters, int], bytes], *optional: str) -> Callable[[Query], bytes]:
        """An endpoint for one symbol."""
        return lambda query: tell(Parameters(query, mandatory=("symbol",), optional=optional), self._clock.now())

    def _klines(self, query: Query) -> bytes:
        parameters = Parameters(
            query, mandatory=("symbol", "interval"), optional=("startTime", "endTime", "timeZone", "limit")
        )
        symbol = parameters.symbol("symbol")
        start, end, limit = (parameters.number(name) for name in ("startTime", "endTime", "limit"))
        if limit == 0:
            raise malformed("limit")
        if symbol is None or symbol not in self._market.symbols:
            raise BadRequest(-1121, "Invalid symbol.")
        try:
            interval = Interval(parameters.text("interval") or "")
        except ValueError:
            raise BadRequest(-1120, "Invalid interval.") from None
        if interval is Interval.S1 and not self._venue.has_seconds:
            raise BadRequest(-1120, "Invalid interval.")
        offset = offset_of(parameters.text("timeZone"))
        now = self._clock.now() - sum(fault.by_ms for fault in self._faults.active(RestBehind, symbol))
        if limit is not None and limit > self._venue.most_rows and not self._venue.is_limit_capped:
            raise BadRequest(-1130, "Data sent for parameter 'limit' is not valid.")
        limit = min(500 if limit is None else limit, self._venue.most_rows)
        if offset:
            page = zoned_page(self._market, symbol, interval, offset, start=start, end=end, limit=limit, now=now)
            return msgspec.json.encode([kline.row for kline in page])
        missing = {
            time
            for fault in self._faults.active(Missing, symbol)
            if fault.interval in (None, interval)
            for time in fault.open_times
        }
        page = self._market.series(symbol, interval).page(start, end, limit, now=now, without=missing)
        return msgspec.json.encode([kline.row for kline in rewrite(self._faults, symbol, interval, page)])

    def _exchange_info(self, query: Query) -> bytes:
        parameters = Parameters(
            query, optional=("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus")
        )
        one, many = parameters.symbol("symbol"), parameters.text("symbols")
        if one is not None and many is not None:
            raise BadRequest(-1128, "Combination of optional parameters invalid.")
        names = list(self._market.symbols)
        if one is not None:
            names = [one]
        elif many is not None:
            names = parameters.names("symbols")
        if any(name not in self._market.symbols for name in names):
            raise BadRequest(-1121, "Invalid symbol.")
        describe = description if self._venue.rest == "/api/v3" else contract_description
        symbols = [describe(self._market.symbols[name]) for name in names]
        if (parameters.text("showPermissionSets") or "true").lower() == "false":
            for entry in symbols:
                entry["permissionSets"] = []
        if parameters.text("symbolStatus") not in (None, "TRADING"):
            symbols = []
        return msgspec.json.encode(
            {
                "timezone": "UTC",
                "serverTime": self._clock.now(),
                "rateLimits": [_rate("REQUEST_WEIGHT", 1, self._weight.limit), _rate("RAW_REQUESTS", 5, 61_000)],
                "exchangeFilters": [],
                "symbols": symbols,
            }
        )


def _rate(kind: str, minutes: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": "MINUTE", "intervalNum": minutes, "limit": limit}


def _error(code: int, message: str) -> bytes:
    return msgspec.json.encode({"code": code, "msg": message})


def _spoiled(body: bytes, shape: BodyShape) -> bytes:
    rows: Any = msgspec.json.decode(body)
    whole = isinstance(rows, list) and bool(rows)
    match shape:
        case "html":
            return b"<html><body>502 Bad Gateway</body></html>"
        case "truncated":
            return body[: len(body) // 2]
        case "empty":
            return b""
        case "not_an_array":
            return b'{"rows":' + body + b"}"
        case "wrong_types":
            if whole:
                rows[len(rows) // 2][:3] = [str(rows[len(rows) // 2][0]), None, {}]
            return msgspec.json.encode(rows if whole else [None])
        case "short_rows":
            return msgspec.json.encode([row[:6] for row in rows] if whole else [[]])
    assert_never(shape)
