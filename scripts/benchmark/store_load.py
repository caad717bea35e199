"""Commits to Redis as fast as they are taken: a process of its own, told over standard input which way and how long.

``python -m benchmark.store_load PORT`` fills an empty Redis with series, once for the store and once for the peers, and
then answers each `Task` with a `Done`, JSON lines both. It ends when its standard input does.

The peers write the same bytes to the same kind of list and publish them, and ask for nothing: no token, no revision, no
continuity. The difference to them is what the guarantee costs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from itertools import cycle, islice, pairwise

import redis
import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.replica import Commit
from candlesync.store.address import Address
from candlesync.store.codec import encode_candle
from candlesync.store.pipeline import Limits
from candlesync.store.redis import RedisSettings, RedisStore

from .delivery import percentile

SERIES = 500
HISTORY = 1000
STORE, STORE_ALONE, PLAIN, PLAIN_ALONE, READ = "store", "store alone", "plain", "plain alone", "read"
"""The ways: candlesync's store as it is; with one call a commit; redis-py without any checks, as many commits in one
pipeline as candlesync gathers; a pipeline for each commit; and whole series read, and checked, instead of commits."""
_GROUP = Limits().calls
_BEGINNING = 25
"""Series that begin at the same time."""
_LIFE = "life"
_START = 1_700_000_040_000


@dataclass(frozen=True)
class Task:
    """What it is told."""

    way: str
    series: int
    """How many at a time: each commits again as soon as its last commit stands."""
    seconds: float


@dataclass(frozen=True)
class Done:
    """What it did."""

    count: int
    """Commits, or reads."""
    p50: float
    """Seconds that one took, from its beginning until it was known to stand."""
    p99: float
    faults: list[str] = field(default_factory=list)


class _Series:
    """One, of which every other commit closes a minute and opens the next. Its first has been made."""

    def __init__(self, number: int) -> None:
        self.name = Series(f"S{number}USDT", Interval.M1)
        self.revision = 1
        self.token = 0

    def next(self) -> Commit:
        """The next commit."""
        self.revision += 1
        tail = HISTORY - 2 + (self.revision + 1) // 2
        forming = _candle(tail, closed=False)
        candles = (_candle(tail - 1, closed=True), forming) if self.revision % 2 else (forming,)
        return Commit(_LIFE, self.revision, candles)


class _Store:
    """Candlesync's, in two forms: they share the series."""

    def __init__(self, port: int) -> None:
        address = Address(f"redis://127.0.0.1:{port}")
        self.gathering = RedisStore(RedisSettings(address), HISTORY)
        self.alone = RedisStore(RedisSettings(address, writes=Limits(calls=1)), HISTORY)
        self.series = [_Series(number) for number in range(SERIES)]

    async def begin(self) -> None:
        """Make each series, with its whole history."""
        candles = (*(_candle(number, closed=True) for number in range(HISTORY - 1)), _candle(HISTORY - 1, closed=False))

        async def begin(one: _Series) -> None:
            one.token = await self.gathering.claim(one.name.symbol)
            await self.gathering.commit(one.name, Commit(_LIFE, 1, candles, begins=True), token=one.token)

        # Not all at once: to write a thousand candles as bytes takes 5 ms, in which no deadline is heard.
        for first in range(0, SERIES, _BEGINNING):
            await _all([partial(begin, one) for one in self.series[first : first + _BEGINNING]])

    async def commit(self, store: RedisStore, task: Task) -> Done:
        """Each of so many series commits again and again."""
        delays = list[float]()
        until = time.perf_counter() + task.seconds

        async def commit(one: _Series) -> None:
            while (begin := time.perf_counter()) < until:
                await store.commit(one.name, one.next(), token=one.token)
                delays.append(time.perf_counter() - begin)

        await _all([partial(commit, one) for one in self.series[: task.series]])
        return _done(delays)

    async def read(self, task: Task) -> Done:
        """Read series one after the other, and see whether all that was committed is there."""
        delays, faults = [], []
        for one in self.series[: task.series]:
            begin = time.perf_counter()
            snapshot = await self.gathering.read(one.name)
            delays.append(time.perf_counter() - begin)
            if snapshot is None or snapshot.revision != one.revision:
                faults.append(f"{one.name} is not at its last commit in Redis")
                continue
            times = [candle.open_time for candle, _revision in snapshot.candles]
            if len(times) != HISTORY or any(later - time != MINUTE for time, later in pairwise(times)):
                faults.append(f"{one.name} is not continuous in Redis")
        return _done(delays, faults)


class _Plain:
    """What is written without any checks."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._series = [_Series(number) for number in range(SERIES)]

    def begin(self) -> None:
        """Make each list."""
        values = [encode_candle(_candle(number, closed=number < HISTORY - 1), 1) for number in range(HISTORY)]
        for one in self._series:
            self._client.rpush(_plain_key(one), *values)

    def commit(self, together: int, task: Task) -> Done:
        """Each of so many series again and again, ``together`` of them in one pipeline."""
        series = cycle(self._series[: task.series])
        together = min(together, task.series)
        delays = list[float]()
        until = time.perf_counter() + task.seconds
        while (begin := time.perf_counter()) < until:
            pipeline = self._client.pipeline(transaction=False)
            for one in islice(series, together):
                _add(pipeline, one)
            pipeline.execute()
            delays += [time.perf_counter() - begin] * together
        return _done(delays)


def _add(pipeline: redis.client.Pipeline, one: _Series) -> None:
    key = _plain_key(one)
    values = [encode_candle(candle, one.revision) for candle in one.next().candles]
    pipeline.execute_command("LSET", key, -1, values[0])  # redis-py's own method is typed for text only
    for value in values[1:]:
        pipeline.rpush(key, value)
        pipeline.ltrim(key, -HISTORY, -1)
    pipeline.publish(f"plain:{one.name.symbol}", b"".join(values))


def _plain_key(one: _Series) -> str:
    return f"plain:{one.name.symbol}:{one.name.interval}"


def _done(delays: list[float], faults: Sequence[str] = ()) -> Done:
    delays.sort()
    return Done(len(delays), percentile(delays, 0.50), percentile(delays, 0.99), list(faults))


@cache
def _candle(number: int, *, closed: bool) -> Candle:
    """As long as BTCUSDT's are; made once, that what is measured is the committing."""
    opened = _START + number * MINUTE
    digits = f"{number * 7919 % 100_000:05}"
    price = f"{37000 + number % 97}.{digits[:2]}000000"
    return Candle(
        open_time=opened,
        open=price,
        high=price,
        low=price,
        close=price,
        volume=f"35.{digits}000",
        close_time=opened + MINUTE - 1,
        quote_volume=f"1295430.{digits}{digits[:3]}",
        trades=1500,
        taker_base_volume=f"17.{digits}000",
        taker_quote_volume=f"647715.{digits}{digits[:3]}",
        unused="0",
        closed=closed,
    )


async def _all(calls: Sequence[Callable[[], Awaitable[object]]]) -> None:
    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(call)


async def _run(port: int) -> None:
    store = _Store(port)
    with redis.Redis(port=port) as client:
        plain = _Plain(client)
        async with trio.open_nursery() as nursery:
            for form in (store.gathering, store.alone):
                await nursery.start(form.run)
            await store.begin()
            plain.begin()
            print(json.dumps({"size": _size(client, store)}), flush=True)
            async for line in trio.wrap_file(sys.stdin):
                task = Task(**json.loads(line))
                print(json.dumps(asdict(await _do(task, store, plain))), flush=True)
            nursery.cancel_scope.cancel()


async def _do(task: Task, store: _Store, plain: _Plain) -> Done:
    if task.way == READ:
        return await store.read(task)
    # The peers block the loop: nothing else is to be done in it meanwhile.
    if task.way == PLAIN:
        return plain.commit(_GROUP, task)
    if task.way == PLAIN_ALONE:
        return plain.commit(1, task)
    return await store.commit(store.gathering if task.way == STORE else store.alone, task)


def _size(client: redis.Redis, store: _Store) -> int:
    """Bytes that Redis needs for a series."""
    keys, one = store.gathering.keys, store.series[0].name
    names = (keys.candles(one), keys.meta(one), keys.fence(one.symbol))
    return sum(client.memory_usage(name, samples=0) or 0 for name in names)


if __name__ == "__main__":
    trio.run(_run, int(sys.argv[1]))
