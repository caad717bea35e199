"""The routes below ``/udf``."""

from __future__ import annotations

import math

import msgspec
import trio
from quart import Blueprint, Response, request

from candlesync.archive import Archive
from candlesync.binance.rest import Rest
from candlesync.binance.symbols import Symbols
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.doors.udf import history
from candlesync.doors.udf.parameters import Values, read_limit, read_question, read_ticker
from candlesync.doors.udf.symbols import Configuration, describe, search
from candlesync.errors import CandlesyncError
from candlesync.supervisor import Supervisor
from candlesync.web.parameters import only
from candlesync.web.refusal import refusal_of

_encode = msgspec.json.Encoder().encode

_LOOKED_AT = 100
"""Candles that tell the decimals of a symbol whose steps Binance does not say."""


class ServerTime:
    """What time the exchange has: asked of it at most once a second, whoever wants to know.

    Ours may be wrong (invariant 7), and a simulator's runs at another speed.
    """

    PATIENCE = 5.0
    OLDEST = 1.0

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._lock = trio.Lock()
        self._asked_at = -math.inf
        self._time = 0

    async def now(self) -> int:
        """UNIX milliseconds. Raises `UpstreamUnavailable`."""
        async with self._lock:
            if trio.current_time() >= self._asked_at + self.OLDEST:
                self._time = await self._rest.server_time(patience=self.PATIENCE)
                self._asked_at = trio.current_time()
            return self._time


def udf_routes(supervisor: Supervisor, symbols: Symbols, archive: Archive, rest: Rest) -> Blueprint:
    """The routes, over the parts that serve ``/candles`` and ``/symbols``."""
    routes = Blueprint("udf", __name__, url_prefix="/udf")
    time = ServerTime(rest)

    @routes.get("/config")
    async def config() -> Response:
        return _json(_encode(Configuration()))

    @routes.get("/symbols")
    async def describe_symbol() -> Response:
        info = await symbols.require(read_ticker(request.args.getlist))
        if info.tick_size and info.step_size:
            return _json(_encode(describe(info)))
        topic = await supervisor.ensure(Series(info.symbol, Interval.M1))
        return _json(_encode(describe(info, (entry.candle for entry in topic.replica.newest(_LOOKED_AT)))))

    @routes.get("/search")
    async def find() -> Response:
        values = request.args.getlist
        limit = read_limit(values)
        text, exchange, kind = (_text(name, values) for name in ("query", "exchange", "type"))
        return _json(_encode(search(await symbols.all(), text, exchange, kind, limit)))

    @routes.get("/history")
    async def bars() -> Response:
        question = read_question(request.args.getlist)
        topic = await supervisor.ensure(question.series)
        response = _json(await history.answer(topic, archive, question))
        response.headers["Candlesync-State"] = topic.state.value
        return response

    @routes.get("/time")
    async def server_time() -> Response:
        response = Response(str(await time.now() // 1000), mimetype="text/plain")
        response.headers["Cache-Control"] = "no-cache"
        return response

    @routes.errorhandler(CandlesyncError)
    async def refused(error: CandlesyncError) -> Response:
        refusal = refusal_of(error)
        response = _json(_encode({"s": "error", "errmsg": refusal.message}), refusal.status)
        if refusal.retry_after is not None:
            response.headers["Retry-After"] = str(refusal.retry_after)
        return response

    return routes


def _text(name: str, values: Values) -> str:
    return only(name, values(name)) or ""


def _json(body: bytes, status: int = 200) -> Response:
    response = Response(body, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-cache"
    return response
