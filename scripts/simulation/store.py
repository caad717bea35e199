"""The store of a simulation: one in this process, or one a network away that fails as a Redis may."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import trio

from candlesync.core.candle import Series
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.errors import StoreUnavailable
from candlesync.store.memory import MemoryStore

from .ledger import Ledger


class PromptLedgerStore(MemoryStore):
    """The memory store, whose commits are entered in the books."""

    def __init__(self, history: int, ledger: Ledger) -> None:
        super().__init__(history)
        self.ledger = ledger

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        await super().commit(series, commit, token=token)
        self.ledger.answered(series, commit)

    def commit_now(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `PromptStore.commit_now`."""
        super().commit_now(series, commit, token=token)
        self.ledger.answered(series, commit)

    async def forget(self, series: Series, *, token: int) -> None:
        """See `Store.forget`."""
        await super().forget(series, token=token)
        self.ledger.forgotten(series)

    def _commit(self, series: Series, commit: Commit, token: int) -> None:
        super()._commit(series, commit, token)
        self.ledger.committed(series, commit)


class RemoteStore(PromptLedgerStore):
    """The same a network away: it takes time, may be down, lose an answer, or be replaced by what it was before.

    A symbol can be claimed whatever happens: with a store that several nodes share, that is the matter of the leases.
    """

    commit_now = None  # type: ignore[assignment] # what is away cannot be asked without waiting: no `PromptStore`

    def __init__(self, history: int, ledger: Ledger, copied_at: Iterable[float]) -> None:
        """``copied_at`` are the moments of the copies that it will be replaced by."""
        super().__init__(history, ledger)
        self._delay = 0.001
        """Seconds from a question to its answer."""
        self._slow_until = 0.0
        self._slow_delay = 0.0
        self.down_until = 0.0
        self.hangs = False
        self.to_lose: deque[tuple[bool, bool]] = deque()
        """The answers that commits to come do not get: whether it happens, and whether the question hangs."""
        self._copied_at = sorted(copied_at)
        self._copies: dict[float, dict[Series, Snapshot]] = {}

    async def run(self) -> None:
        """Be copied when it is time."""
        for time in self._copied_at:
            await trio.sleep_until(time)
            self._copies[time] = {series: kept.snapshot() for series, kept in self._series.items()}

    def be_slow(self, delay: float, seconds: float) -> None:
        """Take ``delay`` seconds for each answer, for a while."""
        self._slow_delay, self._slow_until = delay, trio.current_time() + seconds

    def fall_back(self, copied_at: float) -> None:
        """Become the copy of that moment: of before there was anything, an empty one."""
        self._become(self._copies.pop(copied_at, {}))

    def wipe(self) -> None:
        """Lose all series."""
        self._become({})

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        await self._travel()
        snapshot = await super().read(series)
        await self._travel()
        return snapshot

    async def position(self, series: Series) -> Position | None:
        """See `Store.position`."""
        await self._travel()
        position = await super().position(series)
        await self._travel()
        return position

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        await self._travel()
        happens, hangs = self.to_lose.popleft() if self.to_lose else (True, None)
        if happens:
            self._commit(series, commit, token)
        if hangs is not None:
            await self._lose(hangs=hangs)
        await self._travel()
        self.ledger.answered(series, commit)

    async def forget(self, series: Series, *, token: int) -> None:
        """See `Store.forget`. A store outside of the process keeps the series."""
        await self._travel()
        self._check(series, token)

    async def _travel(self) -> None:
        if trio.current_time() < self.down_until:
            await self._lose(hangs=self.hangs)
        is_slow = trio.current_time() < self._slow_until
        await trio.sleep((self._slow_delay if is_slow else self._delay) / 2)

    async def _lose(self, *, hangs: bool) -> None:
        if hangs:
            await trio.sleep(2.0)  # as long as the Redis store waits for an answer
            raise StoreUnavailable("no answer within 2 s")
        await trio.lowlevel.checkpoint()
        raise StoreUnavailable("the connection was lost")

    def _become(self, copy: dict[Series, Snapshot]) -> None:
        self._series.clear()
        for series, snapshot in copy.items():
            self._series[series] = Replica(series, self._history)
            self._series[series].restore(snapshot)
        self.ledger.fell_back(copy)
