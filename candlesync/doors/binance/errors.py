"""What a client of Binance's API is told when it cannot have what it asked for: Binance's codes, words and statuses.

Over REST it is an HTTP answer, on an open stream the ``error`` of an answer (`candlesync.doors.binance.requests`).

Sources: errors.md of github.com/binance/binance-spot-api-docs, and recorded bodies
(``../shared/data/rest/binance_error_bodies.json``). "Codes are universal, but messages can vary": where the reason is
this server's own, the message says it. Pure.
"""

from __future__ import annotations

import math

import msgspec

from candlesync.errors import (
    CandlesyncError,
    RateLimited,
    TooMany,
    UnknownInterval,
    UnknownSymbol,
    UpstreamUnavailable,
)
from candlesync.web.refusal import Refusal
from candlesync.web.refusal import refusal_of as web_refusal_of

_encode = msgspec.json.Encoder().encode

UNKNOWN = -1000
DISCONNECTED = -1001
UNAUTHORIZED = -1002
TOO_MANY_REQUESTS = -1003
UNSUPPORTED_OPERATION = -1020
REJECTED_KEY = -2015

_CODES = {
    "unauthorized": REJECTED_KEY,
    "forbidden": UNAUTHORIZED,
    "too_many": TOO_MANY_REQUESTS,
    "not_found": UNSUPPORTED_OPERATION,
    "method_not_allowed": UNSUPPORTED_OPERATION,
}
"""Binance's code for what the web layer refuses; -1001 for the rest."""


class BinanceRefusal(CandlesyncError):
    """A request, or a stream, that is refused in Binance's form."""

    def __init__(self, status: int, code: int, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status, where that is how it is told."""
        self.code = code
        self.message = message
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        """Whole seconds after which asking again makes sense."""

    @property
    def body(self) -> bytes:
        """``{"code":…,"msg":…}``, the body of an HTTP answer."""
        return _encode({"code": self.code, "msg": self.message})


def bad_request(code: int, message: str) -> BinanceRefusal:
    """A question that is wrong in itself."""
    return BinanceRefusal(400, code, message)


def illegal(name: str, legal: str) -> BinanceRefusal:
    """A value with characters that cannot be in it."""
    return bad_request(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def malformed(name: str) -> BinanceRefusal:
    """A mandatory parameter that was not sent, or a value that cannot be."""
    return bad_request(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def invalid(name: str) -> BinanceRefusal:
    """A value that is not one of those there are."""
    return bad_request(-1130, f"Data sent for parameter '{name}' is not valid.")


def invalid_symbol() -> BinanceRefusal:
    """A symbol that there is not."""
    return bad_request(-1121, "Invalid symbol.")


def invalid_interval() -> BinanceRefusal:
    """An interval that there is not, or not on this venue."""
    return bad_request(-1120, "Invalid interval.")


def refusal_of(error: CandlesyncError) -> BinanceRefusal:
    """How an error of ours is told to a client of Binance's API."""
    match error:
        case BinanceRefusal():
            return error
        case UnknownSymbol():
            return invalid_symbol()
        case UnknownInterval():
            return invalid_interval()
        case RateLimited() | TooMany():
            what = "Too much request weight used" if isinstance(error, RateLimited) else "Too many requests"
            return BinanceRefusal(429, TOO_MANY_REQUESTS, f"{what}; {error}.", retry_after=error.retry_after)
        case UpstreamUnavailable():
            retry_after = min(error.retry_after, 3600.0) or 5.0
            message = f"Internal error; unable to process your request. Please try again. ({error})"
            return BinanceRefusal(503, DISCONNECTED, message, retry_after=retry_after)
        case _:
            refusal = web_refusal_of(error)
            code = _CODES.get(refusal.code, DISCONNECTED)
            return BinanceRefusal(refusal.status, code, refusal.message, retry_after=refusal.retry_after)


def body_of(refusal: Refusal) -> bytes:
    """The body of what was refused before any path was looked at."""
    return refusal_of(refusal).body
