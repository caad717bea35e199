"""All settings of a candlesync process, in one value."""

from __future__ import annotations

import msgspec

from candlesync.binance.rest_client import RestSettings
from candlesync.binance.stream import StreamSettings
from candlesync.binance.symbols import SymbolSettings
from candlesync.binance.venue import Venue
from candlesync.binance.weight import WeightSettings
from candlesync.core.audit import AuditSettings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import Rules
from candlesync.inspection import InspectionSettings
from candlesync.leases import LeaseSettings
from candlesync.store.redis import RedisSettings
from candlesync.supervisor import SupervisorSettings
from candlesync.web.access import AccessSettings


class Settings(msgspec.Struct, frozen=True):
    """What a process is told; each part belongs to the module that keeps to it. Times in seconds."""

    symbols: tuple[str, ...] = ()
    """Pinned: followed from the start, for ever. Upper case."""
    intervals: tuple[Interval, ...] = (Interval.M1,)
    """Of each pinned symbol."""
    rules: Rules = Rules()
    rest: RestSettings = RestSettings()
    weight: WeightSettings = WeightSettings()
    listed: SymbolSettings = SymbolSettings()
    stream: StreamSettings = StreamSettings()
    inspection: InspectionSettings = InspectionSettings()
    audit: AuditSettings = AuditSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    store: RedisSettings | None = None
    """The store that this process shares with others; `None`: its own memory."""
    node_name: str = ""
    """How this process is called where people see it; empty: its host and its number."""
    leases: LeaseSettings = LeaseSettings()
    access: AccessSettings = AccessSettings()
    max_connections: int = 10_000
    """Of all clients; each takes some 50 KiB, and a file."""
    max_subscriptions: int = 500
    """Series that one socket may subscribe to."""
    message_rate: float = 50.0
    """Messages a second that a client may send on one socket; 0 is no limit."""
    grace: float = 10.0
    """From SIGTERM to the end, whatever clients do."""
    send_timeout: float = 30.0
    """A client whose connection takes no byte for so long is cut off."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself, with `ValueError`."""
        if self.rest.venue is not self.stream.venue:
            raise ValueError(
                f"REST of {self.rest.venue.name} and streams of {self.stream.venue.name}: one venue a process"
            )
        for interval in self.intervals:
            if interval not in self.venue.intervals:
                known = ", ".join(map(str, self.venue.intervals))
                raise ValueError(f"{self.venue.name} has no interval {interval}; there are {known}")

    @property
    def venue(self) -> Venue:
        """The one that this process follows."""
        return self.rest.venue

    @property
    def pinned(self) -> tuple[Series, ...]:
        """The pinned series."""
        return tuple(Series(symbol, interval) for symbol in self.symbols for interval in self.intervals)
