"""Which of Binance's markets is simulated: spot, or USD-M futures as far as klines need it.

Sources: binance-spot-api-docs; for USD-M developers.binance.com, "Kline/Candlestick Data", "Exchange Information",
"Websocket Market Streams" and "Important WebSocket Change Notice".
"""

from __future__ import annotations

from typing import Literal

import msgspec

VenueName = Literal["spot", "usdm"]


class Venue(msgspec.Struct, frozen=True, kw_only=True):
    """What one market has that another has not."""

    rest: str
    """What REST paths begin with."""
    streams: str
    """What the paths of kline streams begin with. Connections to other paths are taken, and what they subscribe to is
    acknowledged; nothing comes of it."""
    most_rows: int
    """Of a klines answer."""
    is_limit_capped: bool
    """Whether who asks for more gets as many; otherwise it is refused (recorded)."""
    klines_weights: tuple[tuple[int, int], ...]
    """Of a klines request: up to so many rows, so much; above the last, as much as the last."""
    exchange_info_weight: int
    weight_limit: int
    message_rate: int
    has_seconds: bool
    """Whether there are ``1s`` klines."""

    def klines_weight(self, limit: int) -> int:
        """The weight of a klines request."""
        return next((weight for rows, weight in self.klines_weights if limit <= rows), self.klines_weights[-1][1])


VENUES: dict[VenueName, Venue] = {
    "spot": Venue(
        rest="/api/v3",
        streams="",
        most_rows=1000,
        is_limit_capped=True,
        klines_weights=((1000, 2),),
        exchange_info_weight=20,
        weight_limit=6_000,
        message_rate=5,
        has_seconds=True,
    ),
    "usdm": Venue(
        rest="/fapi/v1",
        streams="/market",
        most_rows=1500,
        is_limit_capped=False,
        klines_weights=((99, 1), (499, 2), (1000, 5), (1500, 10)),
        exchange_info_weight=1,
        weight_limit=2_400,
        message_rate=10,
        has_seconds=False,
    ),
}
