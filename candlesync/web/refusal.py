"""What a client is told when it cannot have what it asked for: one code, one status, one close code, one shape.

Codes and statuses are part of the client contract (design, section 3); the WebSocket close code is 4000 + the status.
"""

from __future__ import annotations

import math

import msgspec

from candlesync.errors import CandlesyncError, TooMany, UnknownInterval, UnknownSymbol, UpstreamUnavailable

_encode = msgspec.json.Encoder().encode

EXPOSED = "Candlesync-Position, Candlesync-State, ETag, Retry-After, X-MBX-USED-WEIGHT, X-MBX-USED-WEIGHT-1M"
"""Headers that a page of another origin may read."""

STATUSES = {
    "bad_interval": 400,
    "bad_limit": 400,
    "bad_parameter": 400,
    "bad_message": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_subscribed": 404,
    "unknown_symbol": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "too_old": 410,
    "too_many": 429,
    "internal_error": 500,
    "upstream_unavailable": 503,
    "going_down": 503,
    "server_full": 503,
}
"""Every error code with its HTTP status."""


class Refusal(CandlesyncError):
    """A request that is refused; ``code`` is one of `STATUSES`."""

    def __init__(self, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUSES[code]
        self.message = message
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        """Whole seconds after which asking again makes sense."""

    @property
    def close_code(self) -> int:
        """The WebSocket close code that says the same."""
        return 4000 + self.status

    @property
    def body(self) -> bytes:
        """The JSON that REST answers with."""
        return _encode({"error": {"code": self.code, "message": self.message}})

    @property
    def is_before_upgrade(self) -> bool:
        """Whether a WebSocket is refused with it before the upgrade: limits, access and 503 (design, section 3)."""
        return self.status in {401, 403, 429, 503}


def refusal_of(error: CandlesyncError) -> Refusal:
    """How an error of ours is told to a client."""
    match error:
        case Refusal():
            return error
        case UnknownSymbol():
            return Refusal("unknown_symbol", str(error))
        case UnknownInterval():
            return Refusal("bad_interval", str(error))
        case TooMany():
            return Refusal("too_many", str(error), retry_after=error.retry_after)
        case UpstreamUnavailable():
            return Refusal("upstream_unavailable", str(error), retry_after=min(error.retry_after, 3600.0) or 5.0)
        case _:
            return Refusal("internal_error", "the server failed to answer")
