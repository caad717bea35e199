"""What a venue is to a chart: the name of an exchange, and the resolutions of its intervals. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from candlesync.binance.venue import SPOT, SPOT_US, USDM, Venue
from candlesync.core.interval import Interval
from candlesync.doors.udf.resolutions import RESOLUTIONS, SHORT


class Market(msgspec.Struct, frozen=True):
    """One venue in the words of the protocol."""

    exchange: str
    """What TradingView calls the exchange, as before the colon of ``BINANCE:BTCUSDT``."""
    name: str
    """The same for people."""
    resolutions: dict[str, Interval]
    """Of the intervals that the venue has, shortest first."""

    def interval(self, resolution: str) -> Interval | None:
        """What a resolution, by any of its names, means; `None` where the venue has no such candles."""
        return self.resolutions.get(SHORT.get(resolution, resolution))

    def multipliers(self, unit: str) -> tuple[str, ...]:
        """The numbers of the resolutions of a unit; of minutes, which have none, for ``""``."""
        return tuple(name.removesuffix(unit) for name in self.resolutions if name.strip("0123456789") == unit)


_NAMES: Final = {
    SPOT.name: ("BINANCE", "Binance"),
    SPOT_US.name: ("BINANCEUS", "Binance.US"),
    USDM.name: ("BINANCE", "Binance USD-M Futures"),
}


def market_of(venue: Venue) -> Market:
    """A venue as charts see it."""
    resolutions = {name: interval for name, interval in RESOLUTIONS.items() if interval in venue.intervals}
    return Market(*_NAMES[venue.name], resolutions)
