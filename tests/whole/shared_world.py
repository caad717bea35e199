"""Several whole services in one process over one shared store: what `tests.whole.world` is to one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random

import trio

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.service import Service
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.settings import SimulatorSettings
from tests.asgi import SocketRefused
from tests.chart import Chart
from tests.shared_store import NodeStore, SharedMemory
from tests.whole.world import Network, World


class Node(World):
    """One node; its charts see it end when it dies."""

    def __init__(self, network: Network, service: Service, nursery: trio.Nursery, store: NodeStore) -> None:
        super().__init__(network, service, nursery)
        self.store = store
        self.dead = trio.Event()

    @property
    def owned(self) -> set[str]:
        """The symbols that it takes for its own."""
        assert self.service.nodes is not None
        return set(self.service.nodes.tenures)

    def state(self, symbol: str = "BTCUSDT") -> State:
        """What its clients are told."""
        topic = self.service.hub.get(Series(symbol, Interval.M1))
        return State.STALE if topic is None else topic.state

    def kill(self) -> None:
        """As SIGKILL does: nothing of it is said to anybody any more."""
        self.store.cut_off = True
        self.dead.set()
        self.nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """As SIGTERM does."""
        self.service.stop()
        await trio.sleep(0.5)
        self.dead.set()
        self.nursery.cancel_scope.cancel()


class SharedWorld:
    """An exchange, a shared store, the nodes, and the charts that go from one node to another."""

    def __init__(self, exchange: Exchange, settings: Settings, nursery: trio.Nursery) -> None:
        self.exchange = exchange
        self.server = SharedMemory(settings.rules.history)
        self.nodes: list[Node] = []
        """Those that live."""
        self._settings = settings
        self._nursery = nursery
        self._numbers = count(1)

    @property
    def minute(self) -> float:
        """Seconds that a minute of the market lasts."""
        return self.exchange.settings.minute_seconds

    async def start(self) -> Node:
        """One more node."""
        node: Node = await self._nursery.start(self._run)
        self.nodes.append(node)
        return node

    def has_owner(self, symbol: str = "BTCUSDT") -> bool:
        """Whether a living node holds the symbol's lease."""
        return any(node.store.node == self.server.owner(symbol) for node in self.nodes)

    def owner(self, symbol: str = "BTCUSDT") -> Node:
        """The node that holds the symbol's lease."""
        (owner,) = [node for node in self.nodes if node.store.node == self.server.owner(symbol)]
        return owner

    def other(self, symbol: str = "BTCUSDT") -> Node:
        """A node that does not."""
        return next(node for node in self.nodes if node.store.node != self.server.owner(symbol))

    async def until_live(self, symbol: str = "BTCUSDT", seconds: float = 60.0) -> None:
        """Until the symbol is live on every node."""
        for node in self.nodes:
            await node.until_live(symbol, seconds=seconds)

    async def roams(self, chart: Chart, random: Random, symbol: str = "BTCUSDT") -> None:
        """A chart that breaks off again and again, and comes back to any node with its position."""
        await self.load(chart, symbol)
        while True:
            code = await self._visit(random.choice(self.nodes), chart, self.minute * random.uniform(0.1, 12), symbol)
            if code == 4410:
                await self.load(chart, symbol)
            elif code not in (None, 1012):
                chart.wrong.append(f"closed with {code}")
            await trio.sleep(self.minute * random.uniform(0, 4))

    async def remains(self, node: Node, chart: Chart, symbol: str = "BTCUSDT") -> None:
        """A chart that breaks off only when its node dies or says so, and then goes where there is one."""
        await node.load(chart, symbol)
        while True:
            if await self._visit(node, chart, float("inf"), symbol) == 4410:
                await trio.sleep(0.2)
                await self.load(chart, symbol)
            if node not in self.nodes:
                node = self.nodes[0]

    async def load(self, chart: Chart, symbol: str) -> None:
        """Over REST from the first node; once more when it has no candles just now."""
        with trio.fail_after(60):
            while True:
                answer = await self.nodes[0].get(f"/candles/{symbol}/{chart.interval}")
                if answer.status_code == 200:
                    chart.load(await answer.get_data(), answer.headers["Candlesync-Position"])
                    return
                await trio.sleep(0.5)

    async def check(self, charts: list[Chart], symbol: str = "BTCUSDT") -> None:
        """At the end: the symbol is live everywhere, and every chart shows the truth and is up to date."""
        await self.until_live(symbol)
        await trio.sleep(3 * self.minute)
        for chart in charts:
            if await self._visit(self.nodes[0], chart, self.minute / 2, symbol) == 4410:
                await self.load(chart, symbol)
            truth = self.nodes[0].truth(chart, symbol)
            assert chart.compare(truth) == []
            assert chart.newest * 1000 >= truth[-1][0], "the chart is behind"
        bodies = [await (await node.get(f"/candles/{symbol}/1m")).get_data() for node in self.nodes]
        assert len(set(bodies)) == 1, "the nodes agree"

    async def _visit(self, node: Node, chart: Chart, seconds: float, symbol: str) -> int | None:
        """Follow a node with the chart's position; the close code, if it closed."""
        code: int | None = None

        async def follow() -> None:
            nonlocal code
            try:
                code = await node.follow(chart, symbol, f"&position={chart.position}")
            except* SocketRefused:
                await trio.sleep(0.1)  # it goes down, or has nothing to show yet
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + seconds
            nursery.start_soon(follow)
            await node.dead.wait()
            nursery.cancel_scope.cancel()
        return code

    async def _run(self, *, task_status: trio.TaskStatus[Node]) -> None:
        network = Network(self.exchange)
        store = self.server.node(f"node{next(self._numbers)}")
        client = network.client(self._settings)
        service = Service(self._settings, client=client, connect=network.connect, shared=store)
        node: Node | None = None
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(service.run)
                node = Node(network, service, nursery, store)
                task_status.started(node)
        finally:
            if node in self.nodes:
                self.nodes.remove(node)


@asynccontextmanager
async def open_shared_world(simulated: SimulatorSettings, settings: Settings, nodes: int) -> AsyncIterator[SharedWorld]:
    """Run an exchange and so many nodes that follow it."""
    exchange = Exchange(simulated)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        async with trio.open_nursery() as services:
            world = SharedWorld(exchange, settings, services)
            for _ in range(nodes):
                await world.start()
            yield world
            services.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
