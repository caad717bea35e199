"""One node: a whole service with its own ways to the store, the exchange and its clients, which may all be cut.

A `Slot` is where nodes run, one after the other: one that has died is never there again, and the next has another
identity and nothing but the store to begin with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import httpx
import trio

from candlesync.config import Settings
from candlesync.simulator.rest import Answer

from .cancelling import Cancelling
from .network import ExchangeTransport, Network, WatchedExchange, Witness
from .pausing import pause, resume
from .peer import PEER, Closed
from .shared import NO_ANSWER, WatchedServer
from .world import MortalService

GRACE = 5.0
"""Seconds that a node which stops gives its clients; the service gives them half of its own grace time."""


CALLS = {"claim", "commit", "renew", "release", "attend", "leave"}
"""What changes something in the store."""


class NodeWitness(Witness):
    """What one node was shown."""

    def __init__(self, of_all: Witness) -> None:
        super().__init__()
        self.watched = of_all.watched
        self._of_all = of_all

    def saw_frame(self, message: str | bytes) -> None:
        """See `Witness.saw_frame`."""
        super().saw_frame(message)
        self._of_all.frames += 1

    def begin(self, symbol: str) -> None:
        """The node owns a symbol from now on: what it was shown before, and has not committed, it does not know."""
        for series in [series for series in self.shown if series.symbol == symbol]:
            self.shown[series].clear()


class NodeTransport(ExchangeTransport):
    """A node's way to the exchange's REST."""

    def __init__(self, exchange: WatchedExchange, witness: Witness) -> None:
        super().__init__(exchange)
        self.down_until = 0.0
        self._witness = witness

    async def _ask(self, path: str, query: Sequence[tuple[str, str]]) -> Answer:
        asked = trio.current_time()
        self._check_way()
        answer = await super()._ask(path, query)
        self._check_way()
        if path == "/api/v3/klines":
            self._witness.saw_answer(dict(query), answer, asked)
        return answer

    def _check_way(self) -> None:
        if trio.current_time() < self.down_until:
            raise httpx.ConnectError("no route to host")


class Node:
    """A process, from its start to its end."""

    def __init__(self, settings: Settings, exchange: WatchedExchange, server: WatchedServer) -> None:
        """Its name, which is its identity too, is in the settings."""
        self.name = name = settings.node_name
        self.witness = NodeWitness(exchange.witness)
        self.network = Network(exchange, self.witness)
        self.store = server.node(name)
        self.cancelling = Cancelling()
        self.live_since: dict[object, float] = {}
        """By topic: since when it says that it is live, if it does."""
        self.paused_until = 0.0
        self.is_open = False
        """Whether it takes clients."""
        self._transport = NodeTransport(exchange, self.witness)
        self.service = MortalService(
            settings,
            client=httpx.AsyncClient(transport=self._transport, base_url="http://binance.test"),
            connect=cast("Any", self.network.connect),
            shared=self.store,
        )
        self.service.cancelling = self.cancelling
        self._is_dead = False
        self._cut_until = 0.0
        self._scope = trio.CancelScope()
        self._task: trio.lowlevel.Task | None = None
        self._nursery: trio.Nursery | None = None
        self._cuts: dict[trio.CancelScope, Callable[[], None]] = {}
        """What ends each client's connection at once, by the scope around what serves it."""

    async def run(self) -> None:
        """Live, until it dies or stops."""
        self._task = trio.lowlevel.current_task()
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                await self._nursery.start(self.service.run)
                self.is_open = True
                await trio.sleep_forever()
        self._task = None

    def owns(self, symbol: str) -> bool:
        """Whether it takes itself for a symbol's owner."""
        return any(task.symbol == symbol and task.tenure is not None for task in self.service.supervisor.tasks)

    @property
    def is_well(self) -> bool:
        """Whether it could take over a symbol."""
        store = self.store
        return self.is_open and not (store.cut_off or store.deafened or store.misses or store.lose_answers)

    # --- what happens to it

    def kill(self) -> None:
        """Nothing of it comes any more, not even a farewell: nobody hears what its tasks say as they end."""
        self._is_dead = True
        self.store.cut_off = True
        self._end()

    async def stop(self) -> None:
        """Go as on SIGTERM, within the grace time; a node that is paused does so when it goes on."""
        await self._until_it_goes_on()
        self.is_open = False
        self.service.stop()
        with trio.move_on_after(GRACE):
            while self._cuts:  # noqa: ASYNC110 - as an outsider waits
                await trio.sleep(0.05)
        self._end()

    async def be_paused(self, seconds: float) -> None:
        """Stand still for a while; a pause within another makes it longer."""
        now, task = trio.current_time(), self._task
        was_paused = now < self.paused_until
        self.paused_until = max(self.paused_until, now + seconds)
        if was_paused or task is None:
            return
        self.store.frozen = True
        pause(task)
        await self._until_it_goes_on()
        self._go_on()

    async def be_cut_off(self, way: str, seconds: float, hangs: bool) -> None:
        """Reach the store or the exchange no more, for a while."""
        if way == "exchange":
            self._transport.down_until = trio.current_time() + seconds
            self.network.go_down(seconds)
            self.network.cut(None)
            return
        if way == "answers":
            self.store.lose_answers |= CALLS
            await trio.sleep(seconds)
            self.store.lose_answers -= CALLS
            return
        self._cut_until = max(self._cut_until, trio.current_time() + seconds)
        self.store.cut_off, self.store.patience = True, NO_ANSWER if hangs else 0.0
        await trio.sleep(seconds)
        self.store.cut_off = self._is_dead or trio.current_time() < self._cut_until

    async def hear_late(self, seconds: float, delay: float) -> None:
        """Hear what is announced late, for a while."""
        self.store.announcement_delay = delay
        await trio.sleep(seconds)
        self.store.announcement_delay = 0.0

    async def be_deaf(self, seconds: float) -> None:
        """Hear nothing that is announced, for a while."""
        self.store.deafened = True
        await trio.sleep(seconds)
        self.store.deafened = False

    async def miss(self, what: str, seconds: float) -> None:
        """Do not hear what is announced of a kind, for a while."""
        self.store.misses.add(what)
        await trio.sleep(seconds)
        self.store.misses.discard(what)

    async def _until_it_goes_on(self) -> None:
        while (until := self.paused_until) > trio.current_time():  # noqa: ASYNC110 - it may become later meanwhile
            await trio.sleep_until(until)

    def _end(self) -> None:
        self.is_open = False
        for cut in self._cuts.values():
            cut()
        self._go_on()
        self._scope.cancel()

    def _go_on(self) -> None:
        self.paused_until = min(self.paused_until, trio.current_time())
        if self._task is not None and self.store.frozen:
            self.store.frozen = False
            resume(self._task)

    # --- its clients

    async def serve(self, scope: dict[str, Any], receive: Any, send: Any) -> bool:
        """Serve an ASGI connection, by a task of the node's own; whether it was served to its end."""
        nursery = self._nursery
        if nursery is None or not self.is_open:
            return False
        done = trio.Event()
        serving = trio.CancelScope()
        is_served = False

        async def serve() -> None:
            nonlocal is_served
            try:
                with serving:
                    await self.service.app(cast("Any", scope), receive, sent)
                    is_served = True
            finally:
                self._cuts.pop(serving, None)
                done.set()

        async def sent(event: dict[str, Any]) -> None:
            await trio.lowlevel.checkpoint()
            if not self._is_dead:
                await send(event)

        def cut() -> None:
            if PEER in scope:
                scope[PEER].cut()
            done.set()

        self._cuts[serving] = cut
        nursery.start_soon(serve)
        try:
            await done.wait()
        finally:
            serving.cancel()  # whoever is gone is not waited for
        return is_served


class Slot:
    """A place for a node: which it is now, and when the next one comes."""

    def __init__(self, new_node: Callable[[], Node], on_end: Callable[[Node], None]) -> None:
        self.node: Node | None = None
        self._new_node = new_node
        self._on_end = on_end
        self._back_at = 0.0
        self._calm = trio.Event()

    async def run(self) -> None:
        """Have one node after the other, until cancelled."""
        while True:
            self.node = self._new_node()
            try:
                await self.node.run()
            finally:
                self._on_end(self.node)
                self.node = None
            with trio.move_on_at(self._back_at):
                await self._calm.wait()

    def calm(self) -> None:
        """Let there be a node all the time from now on."""
        self._calm.set()

    async def lose(self, after: float, is_orderly: bool) -> None:
        """Let the present node stop or die, if there is one; the next comes ``after`` so many seconds."""
        node = self.node
        if node is None or not node.is_open:
            return
        self._back_at = trio.current_time() + after
        if is_orderly:
            await node.stop()
        else:
            node.kill()


class Door:
    """What clients connect to: at each connection another node, whichever takes any. An ASGI application."""

    def __init__(self, choose: Callable[[], Node | None]) -> None:
        self._choose = choose

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Serve a connection; raises `Closed` to who asked over HTTP and gets no answer."""
        await trio.lowlevel.checkpoint()
        node = self._choose()
        is_served = node is not None and await node.serve(scope, receive, send)
        if not is_served and scope["type"] == "http":
            raise Closed(1006, "the node is gone")
