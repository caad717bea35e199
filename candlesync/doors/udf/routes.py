"""The routes below ``/udf``."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import trio
from quart import Blueprint, Response, request

from candlesync.archive import Archive
from candlesync.binance.purpose import Purpose, spending_for
from candlesync.binance.rest import Rest
from candlesync.binance.symbols import Symbols
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.doors.udf import history
from candlesync.doors.udf.history import Bars, NoBars
from candlesync.doors.udf.market import Market, market_of
from candlesync.doors.udf.parameters import (
    MOST_BARS,
    Values,
    bars_parameters,
    read_limit,
    read_question,
    read_ticker,
    search_parameters,
    ticker_parameter,
)
from candlesync.doors.udf.symbols import Configuration, Found, SymbolDescription, configure, describe, search
from candlesync.errors import CandlesyncError, UpstreamUnavailable
from candlesync.supervisor import Supervisor
from candlesync.web.history import STATE
from candlesync.web.openapi import Operation, Parameter, Reply, documented
from candlesync.web.parameters import only
from candlesync.web.refusal import Refusal, refusal_of

_encode = msgspec.json.Encoder().encode

_LOOKED_AT = 100
"""Candles that tell the decimals of a symbol whose steps Binance does not say."""


class UdfError(msgspec.Struct, frozen=True):
    """How the protocol tells errors."""

    s: Literal["error"]
    errmsg: str


def _operation(
    summary: str,
    reply: Reply,
    *,
    description: str = "",
    parameters: tuple[Parameter, ...] = (),
    errors: tuple[str, ...] = (),
) -> Operation:
    return Operation(
        "TradingView UDF",
        summary,
        (reply,),
        description=description,
        parameters=parameters,
        errors=errors,
        error_body=UdfError,
    )


_CONFIG = _operation("What this datafeed can do", Reply(200, "It is", (Configuration,)))
_TIME = _operation(
    "What time the exchange has",
    Reply(200, "UNIX seconds", (int,), "text/plain"),
    errors=("upstream_unavailable",),
)


def _of_symbol(market: Market) -> Operation:
    return _operation(
        "A symbol's description",
        Reply(200, "It is", (SymbolDescription,)),
        parameters=(ticker_parameter(market),),
        errors=("bad_parameter", "unknown_symbol", "too_many", "upstream_unavailable"),
    )


def _of_search(market: Market) -> Operation:
    return _operation(
        "Symbols by what is in their names",
        Reply(200, "The closest first", (list[Found],)),
        parameters=search_parameters(market),
        errors=("bad_limit", "bad_parameter", "upstream_unavailable"),
    )


def _of_history(market: Market) -> Operation:
    return _operation(
        "Bars of a symbol",
        Reply(200, "The bars, or that there are none", (Bars, NoBars), headers=(STATE,)),
        description=(
            f"The bars from `from` on and before `to`, or the `countback` bars before `to`: {MOST_BARS} at most, the "
            "newest. The last one may be forming. Bars of an outage are among them, flat and with volume 0."
        ),
        parameters=bars_parameters(market),
        errors=("bad_interval", "bad_parameter", "unknown_symbol", "too_many", "upstream_unavailable"),
    )


class ServerTime:
    """What time the exchange has: asked of it at most once a second, whoever wants to know.

    Ours may be wrong (invariant 7), and a simulator's runs at another speed.
    """

    PATIENCE = 5.0
    OLDEST = 1.0

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._lock = trio.Lock()
        self._answered_at = -math.inf
        self._answer: int | UpstreamUnavailable = 0

    async def now(self) -> int:
        """UNIX milliseconds. Raises `UpstreamUnavailable`."""
        async with self._lock:
            if trio.current_time() >= self._answered_at + self.OLDEST:
                try:
                    with spending_for(Purpose.PASSED_ON):
                        self._answer = await self._rest.server_time(patience=self.PATIENCE)
                except UpstreamUnavailable as error:
                    # Theirs too who wait for the lock: one after the other, they would wait for ever longer.
                    self._answer = error
                self._answered_at = trio.current_time()
            answer = self._answer
        if isinstance(answer, int):
            return answer
        # Anew: an exception that is raised twice would collect the tracebacks of all who see it.
        raise type(answer)(str(answer), retry_after=answer.retry_after)


def udf_routes(supervisor: Supervisor, symbols: Symbols, archive: Archive, rest: Rest) -> Blueprint:
    """The routes, over the parts that serve ``/candles`` and ``/symbols``."""
    routes = Blueprint("udf", __name__, url_prefix="/udf")
    time, market = ServerTime(rest), market_of(rest.venue)

    @routes.get("/config")
    @documented(_CONFIG)
    async def config() -> Response:
        return _json(_encode(configure(market)))

    @routes.get("/symbols")
    @documented(_of_symbol(market))
    async def describe_symbol() -> Response:
        info = await symbols.require(read_ticker(request.args.getlist, market))
        if info.tick_size and info.step_size:
            return _json(_encode(describe(market, info)))
        topic = await supervisor.ensure(Series(info.symbol, Interval.M1))
        candles = (entry.candle for entry in topic.replica.newest(_LOOKED_AT))
        return _json(_encode(describe(market, info, candles)))

    @routes.get("/search")
    @documented(_of_search(market))
    async def find() -> Response:
        values = request.args.getlist
        limit = read_limit(values)
        text, exchange, kind = (_text(name, values) for name in ("query", "exchange", "type"))
        return _json(_encode(search(market, await symbols.all(), text, exchange, kind, limit=limit)))

    @routes.get("/history")
    @documented(_of_history(market))
    async def bars() -> Response:
        question = read_question(request.args.getlist, market)
        topic = await supervisor.ensure(question.series)
        response = _json(await history.answer(topic, archive, question))
        response.headers["Candlesync-State"] = topic.state.value
        return response

    @routes.get("/time")
    @documented(_TIME)
    async def server_time() -> Response:
        response = Response(str(await time.now() // 1000), mimetype="text/plain")
        response.headers["Cache-Control"] = "no-cache"
        return response

    @routes.errorhandler(CandlesyncError)
    async def refused(error: CandlesyncError) -> Response:
        refusal = refusal_of(error)
        response = _json(body_of(refusal), refusal.status)
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(refusal.retry_after)
        return response

    return routes


def body_of(refusal: Refusal) -> bytes:
    """A refusal in the protocol's form."""
    return _encode(UdfError("error", refusal.message))


def _text(name: str, values: Values) -> str:
    return only(name, values(name)) or ""


def _json(body: bytes, status: int = 200) -> Response:
    response = Response(body, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return response
