"""The embedded store: series in this process's memory, gone with it."""

from __future__ import annotations

from itertools import count

import trio

from candlesync.core.candle import Series
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.errors import Fenced


class MemoryStore:
    """The store's contract (see ``store.base``) kept in memory, ``history`` candles a series."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._series: dict[Series, Replica] = {}
        self._tokens: dict[str, int] = {}
        self._next_token = count(1)

    async def claim(self, symbol: str) -> int:
        """See `Store.claim`."""
        await trio.lowlevel.checkpoint()
        self._tokens[symbol] = token = next(self._next_token)
        return token

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        await trio.lowlevel.checkpoint()
        kept = self._series.get(series)
        return None if kept is None else kept.snapshot()

    async def position(self, series: Series) -> Position | None:
        """See `Store.position`."""
        await trio.lowlevel.checkpoint()
        kept = self._series.get(series)
        return None if kept is None else kept.position

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        # The only checkpoint comes before the change, so that cancellation falls before it or not at all.
        await trio.lowlevel.checkpoint()
        self._commit(series, commit, token)

    def commit_now(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `PromptStore.commit_now`."""
        self._commit(series, commit, token)

    async def forget(self, series: Series, *, token: int) -> None:
        """See `Store.forget`."""
        await trio.lowlevel.checkpoint()
        self._check(series, token)
        self._series.pop(series, None)

    def _commit(self, series: Series, commit: Commit, token: int) -> None:
        self._check(series, token)
        kept = self._series.get(series)
        if kept is None:
            kept = Replica(series, self._history)
            kept.apply(commit)
            self._series[series] = kept
        else:
            kept.apply(commit)

    def _check(self, series: Series, token: int) -> None:
        if token != self._tokens.get(series.symbol):
            raise Fenced(f"{series}: token {token} is not the current one")
