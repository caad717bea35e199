"""A deployment of real processes: a simulated Binance, a Redis, nodes that share it, and people who look at charts.

Times are those of `time.monotonic`, in seconds.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import pairwise, zip_longest
from random import Random
from typing import Any, NamedTuple

import httpx
import trio

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from tests.chart import Chart, read
from tests.stalls import Stalls, stalls
from tests.store.redis_server import RedisServer, redis_store, run_server
from tests.whole.programs import (
    PATIENCE,
    Program,
    follow,
    free_host,
    market_time,
    open_client,
    run_program,
    simulator,
    truth,
    try_to_load,
)

MINUTE = 0.25
"""Seconds that a minute of the simulated market lasts: each symbol's owner commits 20 times a second."""
PREFIX = "candlesync"
CURRENT = 1.5
"""Seconds within which a chart that follows a node shows what the market shows now."""
LEASE = 2.0


class ShownChart(Chart):
    """A chart that remembers when it showed something new, and what it was ever sent."""

    def __init__(self, interval: Interval = Interval.M1) -> None:
        super().__init__(interval)
        self.news: list[float] = []
        self.sent: dict[tuple[str, int, int], str] = {}
        """Each message that was sent, by life, open time and revision."""
        self._revision = 0

    def load(self, body: str | bytes, position: str | None = None) -> None:
        super().load(body, position)
        self._revision = max((candle["rev"] for candle in self.candles.values()), default=0)

    def take(self, message: str | bytes) -> None:
        super().take(message)
        text = str(message).partition(',"position"')[0].removesuffix("}")
        told = read(message)
        # Before its last message a catch-up tells no position: it is of the life that the client named.
        self.sent[(self.position or "").partition("-")[0], told["time"], told["rev"]] = text
        candle = next(reversed(self.candles.values()), None)
        if candle is not None and candle["rev"] > self._revision:
            self._revision = candle["rev"]
            self.news.append(time.monotonic())

    def first_news(self, after: float) -> float:
        """When it first showed something new after a moment; infinite if it did not."""
        return next((moment for moment in self.news if moment > after), float("inf"))

    def silences(self, begin: float, end: float) -> list[tuple[float, float]]:
        """The times between two moments in which it showed nothing new: from when, and for how many seconds."""
        moments = [begin, *(moment for moment in self.news if begin < moment < end), end]
        return [(moment, later - moment) for moment, later in pairwise(moments)]


class Viewer:
    """Somebody who looks at a chart of one series, on one node or another; loads again only when told to."""

    def __init__(self, hosts: Sequence[str], seed: int, symbol: str, interval: Interval = Interval.M1) -> None:
        """The first host is the favourite one."""
        self.hosts = hosts
        self.symbol = symbol
        self.chart = ShownChart(interval)
        self.codes: Counter[int] = Counter()
        """How often a connection ended with which close code; 0 for one that broke, or could not be made."""
        self._random = Random(seed)

    async def load(self) -> None:
        """Load the chart, wherever that works."""
        with trio.fail_after(2 * PATIENCE):
            for turn in range(10_000):
                with trio.move_on_after(4):  # a node that was stopped accepts connections, and never answers
                    if await try_to_load(self.chart, self.hosts[turn % len(self.hosts)], self.symbol):
                        return
                await trio.sleep(0.05)

    async def stays(self) -> None:
        """Follow the favourite node, for ever; elsewhere only as long as a connection to it cannot be made."""
        await self.load()
        turn = 0
        while True:
            began = time.monotonic()
            await self._follow(self.hosts[turn % len(self.hosts)])
            turn = 0 if time.monotonic() - began > 1 else turn + 1
            await trio.sleep(0.05)

    async def wanders(self) -> None:
        """Follow for ever, breaking off again and again, and coming back anywhere, with the position."""
        await self.load()
        while True:
            with trio.move_on_after(self._random.uniform(0.2, 3)):
                await self._follow(self._random.choice(self.hosts))
            await trio.sleep(self._random.uniform(0.05, 0.3))

    def shows(self, time: int) -> bool:
        """Whether the chart has come to a time of the market."""
        return self.chart.newest * 1000 >= self.chart.interval.floor(time)

    async def catch_up(self, host: str, time: int) -> None:
        """Follow a node from the position until the chart has come to a time of the market."""
        with trio.move_on_after(PATIENCE):
            while not self.shows(time):
                with trio.move_on_after(0.5):
                    await self._follow(host)
                await trio.sleep(0.05)

    async def _follow(self, host: str) -> None:
        code = await follow(self.chart, host, f"&position={self.chart.position}", self.symbol)
        self.codes[code] += 1
        if code == 4410:
            await self.load()


class Span(NamedTuple):
    """For how long so many connections to Binance asked for a symbol."""

    begin: float
    end: float
    connections: int


class Deployment:
    """Processes that share a Redis. Nodes come and go by `start` and by their programs' own methods."""

    def __init__(self, binance: Program, redis_server: RedisServer, stalls: Stalls, nursery: trio.Nursery) -> None:
        self.binance = binance
        self.redis = redis_server
        self.stalls = stalls
        self.nodes: dict[str, Program] = {}
        """By name; those that are dead, too, until they are started again."""
        self._nursery = nursery

    async def start(
        self, name: str, *arguments: str, store: str = "", lease: float = LEASE, module: str = "candlesync"
    ) -> Program:
        """Start a node; it serves when this returns. A node that was killed comes back where it was."""
        host = self.nodes[name].host if name in self.nodes else free_host()
        command = [module, "serve", *arguments, "--bind", host, "--store", store or f"{self.redis.url}/0"]
        command += ["--node-name", name, "--lease", str(lease)]
        command += ["--rest-url", f"http://{self.binance.host}", "--stream-url", f"ws://{self.binance.host}"]
        program: Program = await self._nursery.start(self._keep, partial(run_program, command))
        self.nodes[name] = program
        return program

    async def start_all(self, *names: str, symbol: str = "BTCUSDT", stores: Sequence[str] = ()) -> None:
        """Start nodes at the same time, and wait until all serve the symbol live."""
        async with trio.open_nursery() as nursery:
            for name, store in zip_longest(names, stores, fillvalue=""):
                nursery.start_soon(partial(self.start, name, symbol, store=store))
        await self.until_live(symbol)

    async def start_workers(self, count: int, *symbols: str, lease: float = LEASE) -> Program:
        """Start several workers of the ``hypercorn`` command, all at one address."""
        host = free_host()
        command = ["hypercorn", "-c", "hypercorn.toml", "-w", str(count), "-b", host, "candlesync.asgi:app"]
        environment = {
            "CANDLESYNC_SYMBOLS": " ".join(symbols),
            "CANDLESYNC_STORE": f"{self.redis.url}/0",
            "CANDLESYNC_LEASE": str(lease),
            "CANDLESYNC_REST_URL": f"http://{self.binance.host}",
            "CANDLESYNC_STREAM_URL": f"ws://{self.binance.host}",
        }
        run = partial(run_program, command, host=host, **environment)
        program: Program = await self._nursery.start(self._keep, run)
        self.nodes["workers"] = program
        return program

    @property
    def hosts(self) -> list[str]:
        return [node.host for node in self.nodes.values()]

    async def owner(self, symbol: str = "BTCUSDT") -> str:
        """The name of a symbol's owner, once all living nodes agree on it."""
        with trio.fail_after(PATIENCE):
            while True:
                said = {(await self.owners(name)).get(symbol, "") for name in self.living}
                if len(said) == 1 and (name := said.pop()) in self.nodes:
                    return name
                await trio.sleep(0.05)

    async def owners(self, name: str) -> dict[str, str]:
        """What a node says of who owns what."""
        owners: dict[str, str] = (await self.ready(name)).get("owners", {})
        return owners

    async def ready(self, name: str) -> dict[str, Any]:
        """What a node says of itself."""
        async with open_client() as client:
            answer = await client.get(f"http://{self.nodes[name].host}/ready")
        said: dict[str, Any] = answer.json()
        return said

    async def rest(self, name: str, symbol: str = "BTCUSDT", interval: str = "1m", limit: int = 1) -> httpx.Response:
        """What a node answers over REST."""
        url = f"http://{self.nodes[name].host}/candles/{symbol}/{interval}?limit={limit}"
        async with open_client() as client:
            return await client.get(url)

    async def until_live(self, *symbols: str, interval: str = "1m", seconds: float = PATIENCE) -> float:
        """Until all living nodes serve these symbols live; how long that took."""
        began = time.monotonic()
        for name in self.living:
            for symbol in symbols or ("BTCUSDT",):
                await self.until_state(name, "live", symbol=symbol, interval=interval, seconds=seconds)
        return time.monotonic() - began

    async def until_state(
        self, name: str, *states: str, symbol: str = "BTCUSDT", interval: str = "1m", seconds: float = PATIENCE
    ) -> float:
        """Until a node serves a series in one of these states; how long that took."""
        began = time.monotonic()
        state = ""
        with trio.move_on_after(seconds):
            while True:
                with suppress(httpx.TransportError):
                    answer = await self.rest(name, symbol, interval)
                    state = answer.headers.get("Candlesync-State", str(answer.status_code))
                    if state in states:
                        return time.monotonic() - began
                await trio.sleep(0.05)
        raise AssertionError(f"{name}: {symbol} is {state}, not {' or '.join(states)}, after {seconds} s")

    async def connections(self, symbol: str = "BTCUSDT") -> list[Span]:
        """How many connections to Binance asked for a symbol, from the first one until now."""
        shortest = math.inf
        async with open_client() as client:
            for _ in range(5):
                asked = time.monotonic()
                answer = (await client.get(f"http://{self.binance.host}/control/connections")).json()
                now = time.monotonic()
                if now - asked < shortest:  # whose clock we know best
                    shortest, said, offset = now - asked, answer, (asked + now) / 2 - answer["now"]
        changes = [(offset + at, count) for at, name, count in said["changes"] if name == symbol]
        ends = [at for at, _ in changes[1:]] + [now]
        return [Span(at, end, count) for (at, count), end in zip(changes, ends, strict=True)]

    async def not_one(self, begin: float, end: float, symbol: str = "BTCUSDT") -> list[Span]:
        """When, between two moments, not exactly one connection asked for a symbol; relative to the first of them."""
        return [
            Span(max(span.begin, begin) - begin, min(span.end, end) - begin, span.connections)
            for span in await self.connections(symbol)
            if span.connections != 1 and span.end > begin and span.begin < end
        ]

    async def time(self) -> int:
        """The market's, in milliseconds."""
        return await market_time(self.binance)

    async def until_shown(self, viewers: Sequence[Viewer]) -> None:
        """Until these charts, all of which follow a node, show what the market shows now; asserts that it is soon."""
        now = await self.time()

        async def all_show() -> bool:
            return all(viewer.shows(now) for viewer in viewers)

        await self.stalls.until("charts show the present", all_show, CURRENT)

    async def check(self, viewers: Sequence[Viewer]) -> None:
        """All charts are true and whole."""
        rows = {}
        for viewer in sorted(viewers, key=lambda viewer: next(iter(viewer.chart.candles))):
            series = viewer.symbol, viewer.chart.interval
            if series not in rows:
                rows[series] = await truth(self.binance, viewer.chart, viewer.symbol)
            assert viewer.chart.compare(rows[series])[:3] == [], f"{viewer.symbol}, {viewer.codes}"
        # One commit, one text, whoever serves it: what no other node can show was never in the store.
        sent: dict[tuple[str, Interval, tuple[str, int, int]], str] = {}
        for viewer in viewers:
            for version, text in viewer.chart.sent.items():
                assert sent.setdefault((viewer.symbol, viewer.chart.interval, version), text) == text

    async def check_stored(self, *symbols: str, least: int = 1000) -> None:
        """Redis holds the whole of these symbols' minutes, or will soon: a chart may show what was flushed since."""
        chart = Chart()
        async with redis_store(self.redis.url, 1000, prefix=PREFIX) as store:
            for symbol in symbols or ("BTCUSDT",):
                snapshot = None
                with trio.move_on_after(PATIENCE):
                    while (snapshot := await store.read(Series(symbol, Interval.M1))) is None:  # noqa: ASYNC110
                        await trio.sleep(0.05)
                assert snapshot is not None, f"{symbol} is not in the store"
                assert len(snapshot.candles) >= least
                times = [candle.open_time for candle, _ in snapshot.candles]
                assert all(later - time == 60_000 for time, later in pairwise(times))
                chart.candles = {time // 1000: {} for time in times}
                rows = {row[0]: row for row in await truth(self.binance, chart, symbol)}
                for candle, _ in snapshot.candles[:-1]:
                    row = rows[candle.open_time]
                    shown = [str(n) for n in (candle.open, candle.high, candle.low, candle.close, candle.volume)]
                    assert shown == row[1:6], f"{candle} is not {row}"

    @property
    def living(self) -> list[str]:
        return [name for name, node in self.nodes.items() if node.process.poll() is None]

    async def _keep(self, run: Any, *, task_status: trio.TaskStatus[Program]) -> None:
        async with run() as program:
            task_status.started(program)
            await program.process.wait()


@asynccontextmanager
async def deploy(
    *options: str, minute: float = MINUTE, redis_options: Sequence[str] = (), program: str | None = None
) -> AsyncIterator[Deployment]:
    """A simulator with these options, and a Redis (of that ``program``); nodes are the tests' to start."""
    with run_server(*redis_options, program=program) as redis_server:
        async with simulator(minute, *options) as binance, trio.open_nursery() as nursery:
            with stalls() as measured:
                yield Deployment(binance, redis_server, measured, nursery)
            nursery.cancel_scope.cancel()
