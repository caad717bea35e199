"""Binance's venues: where each is, and what it allows. All that differs between them stands in this one table.

Sources (read in November 2026):

- spot: developers.binance.com, Spot, REST API ("LIMITS", "Market data endpoints"), "WebSocket Streams", and for the
  second hosts "Market Data Only URLs".
- spot-us: github.com/binance-us/binance-us-api-docs, ``rest-api.md``, ``web-socket-streams.md``, ``CHANGELOG.md``
  (2023-09-06: no ``1s`` any more).
- usdm: developers.binance.com, USD-M Futures, "Kline/Candlestick Data", "Exchange Information", "Websocket Market
  Streams", "Important WebSocket Change Notice" (since 2026-04-23 klines come on ``/market`` only: the old URLs connect,
  acknowledge and send nothing) and the change log of 2025-07-02 (1,024 streams a connection, 200 before).

What is the same on all of them stands where it is used: the twelve fields of a row, the ``k`` of a frame, the error
codes, the header ``X-MBX-USED-WEIGHT-1M``, 24 hours for a connection, and that an interval is ``1m`` and not ``1M``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from candlesync.core.interval import INTERVALS, Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Venue:
    """One of Binance's markets, with hosts, paths, weights and limits of its own."""

    name: str
    """As ``--venue`` has it."""
    rest_urls: tuple[str, ...]
    """The hosts of REST, the best first. Another one is asked when one refuses this machine's location (451)."""
    stream_urls: tuple[str, ...]
    """The same for streams, up to ``/ws`` or ``/stream``."""
    prefix: str
    """Of all REST paths: what stands before ``/klines``."""
    page_limit: int
    """Rows of one klines answer at most."""
    klines_weights: tuple[tuple[int, int], ...]
    """Weight of a klines request by its limit: up to so many rows, so much. Ascending; the last is `page_limit`."""
    exchange_info_weight: int
    weight_limit: int
    """Weight a minute and IP, until exchangeInfo says another."""
    messages_per_second: int
    """That a client may send on a connection, pings and pongs included."""
    intervals: tuple[Interval, ...]
    streams_per_connection: int = 1024
    connections: int = 300
    """Attempts in 5 minutes and IP. Documented for spot; of the others nothing is said, so the same is kept."""

    def path(self, endpoint: str) -> str:
        """The path of a REST endpoint, such as ``klines``."""
        return f"{self.prefix}/{endpoint}"

    def klines_weight(self, limit: int) -> int:
        """The weight of a klines request for ``limit`` rows, which is from 1 to `page_limit`."""
        return next(weight for rows, weight in self.klines_weights if limit <= rows)

    @property
    def generosity(self) -> float:
        """How many pages of candles it gives in a minute, of those that spot gives."""
        return _pages(self) / _pages(SPOT)

    def store_prefix(self, default: str) -> str:
        """The prefix of the store's keys when none is given: two venues never mix, and spot keeps ``default``."""
        return default if self is SPOT else f"{default}-{self.name}"


def _pages(venue: Venue) -> float:
    return venue.weight_limit / venue.klines_weight(1000)


_WITHOUT_SECONDS = tuple(interval for interval in INTERVALS if interval is not Interval.S1)

SPOT: Final = Venue(
    name="spot",
    rest_urls=("https://api.binance.com", "https://data-api.binance.vision"),
    stream_urls=("wss://stream.binance.com:9443", "wss://data-stream.binance.vision"),
    prefix="/api/v3",
    page_limit=1000,
    klines_weights=((1000, 2),),
    exchange_info_weight=20,
    weight_limit=6_000,
    messages_per_second=5,
    intervals=INTERVALS,
)

SPOT_US: Final = Venue(
    name="spot-us",
    rest_urls=("https://api.binance.us",),
    stream_urls=("wss://stream.binance.us:9443",),
    prefix="/api/v3",
    page_limit=1000,
    klines_weights=((1000, 1),),
    exchange_info_weight=10,
    weight_limit=1_200,
    messages_per_second=5,
    intervals=_WITHOUT_SECONDS,
)

USDM: Final = Venue(
    name="usdm",
    rest_urls=("https://fapi.binance.com",),
    stream_urls=("wss://fstream.binance.com/market",),
    prefix="/fapi/v1",
    page_limit=1500,
    # Pages of 1,000 rows are asked for here as well: 200 rows for each unit of weight, where 1,500 give 150.
    klines_weights=((99, 1), (499, 2), (1000, 5), (1500, 10)),
    exchange_info_weight=1,
    weight_limit=2_400,
    messages_per_second=10,
    intervals=_WITHOUT_SECONDS,
)

VENUES: Final = {venue.name: venue for venue in (SPOT, SPOT_US, USDM)}
