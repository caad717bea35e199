"""The routes of Binance's REST API under ``/binance``: answered from the store, from what is kept, or passed on.

Only `GET` of what is public: a private path, another method or an unknown path is refused here, and what a client may
send along of keys and signatures goes nowhere.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from functools import partial

import trio
from quart import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from candlesync.binance.parse import parse_error
from candlesync.binance.public import Answered, PublicApi, PublicPath, Values
from candlesync.binance.rest import PassedOn
from candlesync.core.sync import State
from candlesync.doors.binance.errors import (
    UNAUTHORIZED,
    UNKNOWN,
    UNSUPPORTED_OPERATION,
    BinanceRefusal,
    refusal_of,
)
from candlesync.doors.binance.exchange_info import BUSY, ExchangeInfo
from candlesync.doors.binance.klines import Klines
from candlesync.doors.binance.operations import operation_of
from candlesync.doors.binance.parameters import read_parameters, wants_microseconds
from candlesync.doors.binance.passing import TIME_UNIT, Passing
from candlesync.errors import CandlesyncError
from candlesync.web.history import read_codings
from candlesync.web.openapi import documented

PREFIX = "/binance"

_PIECE = 64 * 1024
"""Bytes of a long answer that are handed to a client's connection at once: the rest is shared by all who get it."""
_SMALL = 1_024
"""Bytes that are not worth compressing: they fit into one packet."""
_LEVEL = 4
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH"]


class BinanceRest:
    """Answers requests."""

    def __init__(self, klines: Klines, passing: Passing) -> None:
        self._api: PublicApi = klines.api
        self._paths = frozenset(path.path for path in self._api.paths)
        self._klines = klines
        self._passing = passing
        self._exchange_info = ExchangeInfo(self._api.at("exchangeInfo"), passing)

    def routes(self) -> Blueprint:
        """All paths under ``/binance``."""
        routes = Blueprint("binance", __name__, url_prefix=PREFIX)
        for path in self._api.paths:
            view = documented(operation_of(path, self._api))(partial(self._answer, path))
            routes.add_url_rule(path.path, path.path.strip("/").replace("/", "_"), view, methods=["GET"])
        routes.add_url_rule("/", "other", self._refuse, methods=_METHODS)
        routes.add_url_rule("/<path:rest>", "others", self._refuse, methods=_METHODS)
        routes.register_error_handler(CandlesyncError, _refused)
        routes.register_error_handler(HTTPException, _failed)
        routes.after_request(self._say_weight)
        return routes

    async def _answer(self, path: PublicPath) -> Response:
        units = request.headers.getlist(TIME_UNIT) if self._api.has_microseconds else []
        in_microseconds = wants_microseconds(units)
        _refuse_other_forms(",".join(request.headers.getlist("Accept")))
        values = read_parameters(request.query_string, path)
        compressed: bytes | None = None
        state: State | None = None
        match path.answered:
            case Answered.HERE:
                answer = PassedOn(200, b"{}")
            case Answered.CANDLES:
                answer, state = await self._klines.answer(path, values, in_microseconds=in_microseconds)
            case Answered.LISTING:
                answer, compressed = await self._exchange_info.answer(values, in_microseconds=in_microseconds)
            case Answered.PASSED_ON:
                answer = await self._pass_on(path, values, in_microseconds=in_microseconds)
        response = await _response(answer.status, answer.body, compressed)
        if state is not None:
            response.headers["Candlesync-State"] = state.value
        return response

    async def _pass_on(self, path: PublicPath, values: Values, *, in_microseconds: bool) -> PassedOn:
        answer = await self._passing.ask(path, values, in_microseconds=in_microseconds)
        if answer.status == 404 and parse_error(answer.body) is None:
            # The market-data host, say, has fewer paths than the others.
            raise _nothing_there()
        return answer

    async def _refuse(self, rest: str = "") -> Response:
        if f"/{rest}" in self._paths and request.method not in {"GET", "HEAD"}:
            raise BinanceRefusal(405, UNSUPPORTED_OPERATION, f"This operation is not supported: {request.method}.")
        if self._api.is_private(rest) or request.method not in {"GET", "HEAD"}:
            message = "You are not authorized to execute this request: this server has public market data only."
            raise BinanceRefusal(403, UNAUTHORIZED, message)
        raise _nothing_there()

    async def _say_weight(self, response: Response) -> Response:
        # What this server has used of Binance's minute, for all of its clients: answers from the store add nothing.
        used = str(self._passing.budget.statistics().used)
        response.headers["X-MBX-USED-WEIGHT"] = response.headers["X-MBX-USED-WEIGHT-1M"] = used
        response.headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
        if request.method == "OPTIONS" or response.status_code == 405:
            response.headers["Allow"] = "GET, HEAD, OPTIONS"  # the other methods are routed only to be refused
        return response


def _nothing_there() -> BinanceRefusal:
    return BinanceRefusal(404, UNSUPPORTED_OPERATION, "This operation is not supported: there is nothing at this path.")


async def _refused(error: CandlesyncError) -> Response:
    refusal = refusal_of(error)
    response = await _response(refusal.status, refusal.body)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


async def _failed(error: HTTPException) -> Response:
    status = error.code or 500
    return await _refused(BinanceRefusal(status, UNKNOWN, "An unknown error occurred while processing the request."))


def _refuse_other_forms(accepted: str) -> None:
    """Binance has a binary form (sbe_faq.md); who takes JSON too gets that."""
    if "application/sbe" in accepted and not any(form in accepted for form in ("json", "*/*", "application/*")):
        raise BinanceRefusal(406, -1155, "SBE is not enabled.")


async def _response(status: int, body: bytes, compressed: bytes | None = None) -> Response:
    """An answer in the coding that the client takes; ``compressed`` is its gzip, where somebody has made it."""
    headers = {"Content-Type": "application/json;charset=UTF-8", "Vary": "Accept-Encoding"}
    accepted = request.headers.getlist("Accept-Encoding")
    if len(body) > _SMALL and read_codings(", ".join(accepted) if accepted else None)[0] == "gzip":
        headers["Content-Encoding"] = "gzip"
        body = compressed or await _gzip(body)
    headers["Content-Length"] = str(len(body))
    response = Response(_pieces(body) if len(body) > _PIECE else body, status, headers)
    # Quart's minute is too short for 15 MB. Who takes too little for too long is cut off by the server.
    response.timeout = None
    return response


async def _gzip(body: bytes) -> bytes:
    compress = partial(gzip.compress, body, _LEVEL, mtime=0)
    return await trio.to_thread.run_sync(compress) if len(body) > BUSY else compress()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _PIECE):
        yield body[start : start + _PIECE]
