"""What Binance lists, so that an unknown symbol is known to be unknown before anything is started for it.

The list is loaded when it is first needed, and again when it is old, or when somebody asks for a symbol that is not on
it (a new listing). There is no task of its own: whoever needs a load does it, under a lock. A cancelled one releases
the lock, and the next one who waits for it loads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import structlog
import trio

from candlesync.binance.listing import SymbolInfo
from candlesync.binance.purpose import Purpose, spending_for
from candlesync.binance.rest import Rest
from candlesync.core.interval import Interval
from candlesync.errors import UnknownSymbol, UpstreamUnavailable

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SymbolSettings:
    """How old the list may be. All in seconds."""

    refresh: float = 3_600.0
    """The age at which the list is loaded anew: Binance announces new listings hours ahead."""
    refresh_for_unknown: float = 60.0
    """The same, for who asks for a symbol that is not on it: unknown symbols cost Binance one request a minute.
    Also the pause after a refresh that failed."""
    pause: float = 5.0
    """After a first load that failed: for so long nobody tries again, and all are told why it failed."""
    patience: float = 15.0
    """For one load."""


class Symbols:
    """The symbols that Binance lists, by their names in upper case. Times are Trio's."""

    def __init__(self, rest: Rest, settings: SymbolSettings | None = None) -> None:
        self._rest = rest
        self._settings = settings or SymbolSettings()
        self._lock = trio.Lock()
        """Held by whoever loads."""
        self._listed: dict[str, SymbolInfo] = {}
        """Empty before the first load; never again after it."""
        self._loaded_at = -math.inf
        self._failure = UpstreamUnavailable("nobody has loaded the list of symbols yet")
        """Why there is no list, as long as there is none."""
        self._failed_at = -math.inf

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals that the venue has, shortest first."""
        return self._rest.venue.intervals

    async def require(self, symbol: str) -> SymbolInfo:
        """What Binance lists under ``symbol``.

        Raises `UnknownSymbol` when it is on no list younger than a minute (a setting), or on the last one that could
        be had; `UpstreamUnavailable` when none could.
        """
        await self._refresh(self._settings.refresh, content=symbol in self._listed)
        if symbol not in self._listed:
            await self._refresh(self._settings.refresh_for_unknown, content=False)
        info = self._listed.get(symbol)
        if info is None:
            raise UnknownSymbol(f"Binance does not list {symbol}")
        return info

    async def all(self) -> tuple[SymbolInfo, ...]:
        """All that Binance lists, in its order. Raises `UpstreamUnavailable` when no list could ever be loaded."""
        await self._refresh(self._settings.refresh, content=bool(self._listed))
        return tuple(self._listed.values())

    async def _refresh(self, oldest: float, *, content: bool) -> None:
        """See to it that the list is younger than ``oldest`` seconds, or as young as it can be had.

        Who would be ``content`` with the list that stands does not wait for somebody else's load.
        """
        if not self._due(oldest) or (content and self._lock.locked()):
            return
        async with self._lock:
            if not self._due(oldest):
                return  # whoever had the lock before us has loaded it
            pause = self._settings.refresh_for_unknown if self._listed else self._settings.pause
            if trio.current_time() >= self._failed_at + pause:
                await self._load()
            if not self._listed:
                raise self._remembered()

    def _due(self, oldest: float) -> bool:
        return trio.current_time() >= self._loaded_at + oldest

    async def _load(self) -> None:
        try:
            with spending_for(Purpose.LISTING):
                info = await self._rest.exchange_info(patience=self._settings.patience)
        except UpstreamUnavailable as error:
            self._failure = error
            self._failed_at = trio.current_time()
            _log.warning("the list of symbols could not be loaded", error=str(error), listed=len(self._listed))
            return
        self._listed = info.symbols
        self._loaded_at = trio.current_time()

    def _remembered(self) -> UpstreamUnavailable:
        """The failure, anew: an exception that is raised twice would collect the tracebacks of all who see it."""
        age = trio.current_time() - self._failed_at
        left = max(self._settings.pause, self._failure.retry_after) - age
        return type(self._failure)(str(self._failure), retry_after=left)
