"""Who owns a symbol: the only node that holds its Binance connection and commits to its series."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from candlesync.core.interval import Interval
from candlesync.core.report import SeriesReport
from candlesync.store.base import Store


class Tenure:
    """One node's ownership of one symbol, from the claim until it ends."""

    def __init__(self, symbol: str, token: int) -> None:
        self.symbol = symbol
        self.token = token
        """The fencing token of its commits."""
        self.ended = trio.Event()
        """Set when the owner is to stop: the lease was lost, or the symbol is to go to another node."""
        self.reason = ""
        """Why it ended, in words."""

    def end(self, reason: str) -> None:
        """The owner is to stop. Synchronous; the first reason counts."""
        if not self.ended.is_set():
            self.reason = reason
            self.ended.set()


class Ownership(Protocol):
    """Decides when this node owns a symbol."""

    async def obtain(self, symbol: str, report: Callable[[], dict[Interval, SeriesReport]]) -> Tenure:
        """Wait until this node owns the symbol. ``report`` says how its series are, whenever it is asked.

        Never raises `Leased` or `StoreUnavailable`: it goes on trying.
        """
        ...

    def state_changed(self, tenure: Tenure) -> None:
        """The state of one of the symbol's series has changed: followers are told at once. Never waits."""
        ...

    async def give_up(self, tenure: Tenure) -> None:
        """Own the symbol no more; called once for each tenure, when nothing of it commits any more.

        Releases the lease if it still is this node's. Does not raise, and takes a bounded time.
        """
        ...


class SoleOwnership:
    """Of a process that shares its store with nobody: every symbol is its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def obtain(self, symbol: str, report: Callable[[], dict[Interval, SeriesReport]]) -> Tenure:
        """See `Ownership.obtain`."""
        del report
        return Tenure(symbol, await self._store.claim(symbol))

    def state_changed(self, tenure: Tenure) -> None:
        """See `Ownership.state_changed`. There is nobody to tell."""

    async def give_up(self, tenure: Tenure) -> None:
        """See `Ownership.give_up`. There is nobody to give it to."""
