"""A small REST and a store with faults, for what runs on trio between them."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.replica import Commit, Snapshot
from candlesync.errors import UpstreamUnavailable
from candlesync.store.memory import MemoryStore
from tests.builders import answer


class Upstream:
    """REST over a list of candles: what the exchange has. Keeps its promise to answer or fail within the patience."""

    def __init__(self, candles: Sequence[Candle], *, checkpoints: int = 1) -> None:
        self.candles = list(candles)
        self.delay = 0.0
        """Seconds that an answer takes; what it says is what was true before them."""
        self.failure: Exception | None = None
        self.behind = 0
        """How many of the newest candles it does not show yet."""
        self.asked_at: list[float] = []
        self._checkpoints = checkpoints

    async def klines(
        self, series: Series, *, start_time: int | None = None, patience: float = 30.0
    ) -> tuple[Candle, ...]:
        """As `Rest.klines`."""
        del series
        known = self.candles[: len(self.candles) - self.behind]
        rows = [row for row in known if start_time is None or row.open_time >= start_time]
        return await self._answer(rows[:1000], patience)

    async def newest(self, series: Series, count: int, *, patience: float = 30.0) -> tuple[Candle, ...]:
        """As `Rest.newest`."""
        del series
        return await self._answer(self.candles[: len(self.candles) - self.behind][-count:], patience)

    async def _answer(self, rows: Sequence[Candle], patience: float) -> tuple[Candle, ...]:
        self.asked_at.append(trio.current_time())
        failure = self.failure
        for _ in range(self._checkpoints):
            await trio.lowlevel.checkpoint()
        with trio.move_on_after(patience) as scope:
            await trio.sleep(self.delay)
        if scope.cancelled_caught:
            raise UpstreamUnavailable(f"no usable answer within {patience:g} s")
        if failure is not None:
            raise failure
        return answer(rows)


class TroubledStore(MemoryStore):
    """A memory store that is a while away: more awaits in each call, and commits whose outcome stays unknown."""

    def __init__(self, history: int, *, checkpoints: int = 1) -> None:
        super().__init__(history)
        self.commits: list[Commit] = []
        """What was committed, in order."""
        self.hang_before: set[int] = set()
        """The commits that make these revisions hang for ever and do not happen; each once."""
        self.hang_after: set[int] = set()
        """The commits that make these revisions happen, and then hang for ever; each once."""
        self.delay = 0.0
        """Seconds that a commit takes before it happens."""
        self.unreadable = False
        self._checkpoints = checkpoints

    async def read(self, series: Series) -> Snapshot | None:
        """See `Store.read`."""
        await self._travel()
        if self.unreadable:
            await trio.sleep_forever()
        snapshot = await super().read(series)
        await self._travel()
        return snapshot

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        await self._travel()
        if commit.revision in self.hang_before:
            self.hang_before.remove(commit.revision)
            await trio.sleep_forever()
        if self.delay:
            await trio.sleep(self.delay)
        await super().commit(series, commit, token=token)
        self.commits.append(commit)
        if commit.revision in self.hang_after:
            self.hang_after.remove(commit.revision)
            await trio.sleep_forever()
        await self._travel()

    async def _travel(self) -> None:
        for _ in range(self._checkpoints):
            await trio.lowlevel.checkpoint()
