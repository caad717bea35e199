"""Several services that share one store: nodes that die, stop, stand still or are cut off, and come again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import count
from random import Random

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.sync import Rules, State
from candlesync.leases import LeaseSettings
from candlesync.service import Service

from . import schedule
from .cancelling import Cancelling
from .clients import Chart, Client, Many, Poller, Roamer, Slow
from .director import Director
from .draw import SYMBOLS
from .network import Network
from .node import Door, Node, Slot
from .pausing import forget
from .peer import ask
from .schedule import Cancel, Event, StoreFallsBack
from .shared import WatchedServer
from .verdict import Verdict
from .view import View
from .watch import LOOK_EACH, Watch
from .watch_nodes import ClaimantsWitness, NodesWatch
from .world import Outcome, World

HOLD = 7.5
"""Leases for which a node holds on to a symbol that the store does not confirm: as by default."""


class NodesWorld(World):
    """All parts of a simulation with several nodes."""

    kinds: tuple[type[Client], ...] = (Chart, Roamer, Slow, Many, Poller)
    """Who asks for candles from a time on, and gives no position, may be shown less by a node that is behind."""
    server: WatchedServer
    watch: NodesWatch

    async def run(self) -> None:
        """See `World.run`."""
        try:
            await super().run()
        finally:
            forget()

    def node(self, number: int) -> Node | None:
        """The node of that number, modulo how many places there are; `None` while there is none in its place."""
        return self.slots[number % len(self.slots)].node

    @property
    def nodes(self) -> list[Node]:
        """Those that live."""
        return [slot.node for slot in self.slots if slot.node is not None]

    def outcome(self, seconds: float) -> Outcome:
        """See `World.outcome`."""
        made = super().outcome(seconds)
        counts = {"nodes": next(self._numbers) - 1, "claims": self.server.claims, "fenced": self.server.fenced}
        return msgspec.structs.replace(made, counts=made.counts | counts)

    # --- what is another than with one service

    def _open_watch(self, verdict: Verdict, history: int) -> Watch:
        witness = ClaimantsWitness(self._owner)
        watch = NodesWatch(verdict, witness, self.truth, history)
        witness.ledger = watch.ledger
        watch.nodes = lambda: self.nodes
        return watch

    def _open(self, rules: Rules) -> None:
        copied_at = [event.at - event.by for event in self.schedule.events if isinstance(event, StoreFallsBack)]
        self.server = WatchedServer(self.schedule.lease, self.watch.ledger, self.watch.verdict, copied_at)
        self.server.on_claim = self._claimed
        self.watch.server = self.server
        self._numbers = count(1)
        self._rules = rules
        self._healed: Counter[float] = Counter()
        self.slots = [Slot(self._new_node, self._ended) for _ in range(self.schedule.nodes)]
        self._random = Random(f"door/{self.schedule.seed}")  # noqa: S311 - to be repeated, not to be secret
        self.app = Door(self._choose)

    async def _begin(self, nursery: trio.Nursery) -> None:
        nursery.start_soon(self._collect)
        nursery.start_soon(self.server.run)

    async def _start(self, nursery: trio.Nursery) -> None:
        for slot in self.slots:
            nursery.start_soon(slot.run)
        nursery.start_soon(self._watch)

    def _direct(self, nursery: trio.Nursery) -> Director:
        return NodesDirector(self, nursery)

    def _calm(self) -> None:
        for slot in self.slots:
            slot.calm()
        super()._calm()

    def _services(self) -> Iterable[Service]:
        return [node.service for node in self.nodes]

    def _heals(self) -> dict[float, int]:
        return dict(sorted(self._healed.items()))

    def _check_live(self, series: Series) -> None:
        wrong, book = self.watch.verdict.wrong, self.watch.ledger.book(series)
        if len(self.nodes) < len(self.slots):
            wrong("settled", f"of {len(self.slots)} nodes there are {[node.name for node in self.nodes]}")
        for node in self.nodes:
            topic = node.service.hub.get(series)
            if topic is None or topic.state is not State.LIVE:
                wrong("settled", f"{node.name}: {series} is {topic and topic.state}: {topic and topic.failure}")
                continue
            held = topic.replica.snapshot()
            is_same = (held.life, held.revision) == (book.life, book.revision)
            if not is_same or list(held.candles) != list(book.candles.values()):
                wrong("settled", f"{node.name}: {series} at {held.position}, stored at {book.life}-{book.revision}")

    async def check_end(self) -> None:
        """See `World.check_end`; and each node by itself, as a client that has just come sees it."""
        await super().check_end()
        for node in self.nodes:
            for series in self.pinned:
                view = View(f"the end on {node.name}", series, self.watch.ledger, self.truth, self.watch.verdict)
                answer = await ask(node.service.app, f"/candles/{series.symbol}/{series.interval}")
                if answer.status != 200:
                    self.watch.verdict.wrong("settled", f"{view.name}: {answer.status} {answer.body!r}")
                    continue
                view.load(answer.body, answer.headers["candlesync-position"])
                for difference in view.compare()[:3]:
                    self.watch.verdict.wrong("settled", f"{view.name}: {difference}")

    # --- the parts

    def _new_node(self) -> Node:
        leases = LeaseSettings(hold=HOLD * self.server.lease)
        name = f"node{next(self._numbers)}"
        settings = msgspec.structs.replace(self._settings(self._rules), leases=leases, node_name=name)
        return Node(settings, self.exchange, self.server)

    def _ended(self, node: Node) -> None:
        del self.server.nodes[node.name]
        self._healed.update(dict(node.service.healing.times.cumulative()))

    def _choose(self) -> Node | None:
        open_ones = [node for node in self.nodes if node.is_open]
        return self._random.choice(open_ones) if open_ones else None

    def _owner(self, symbol: str) -> Node | None:
        name, _ = self.server.owners_known.get(symbol, ("", 0))
        return next((node for node in self.nodes if node.name == name), None)

    def _claimed(self, name: str, symbol: str) -> None:
        for node in self.nodes:
            if node.name == name:
                node.witness.begin(symbol)

    async def _watch(self) -> None:
        has_begun = False
        while True:
            await trio.sleep(LOOK_EACH)
            if not has_begun and all(node.is_open for node in self.nodes) and len(self.nodes) == len(self.slots):
                has_begun = True
                self.memory.begin()
            for node in self.nodes:
                self.watch.look(node.service)
            self.watch.look_at_owners(SYMBOLS)


class NodesDirector(Director):
    """Lets happen, to nodes and to the store that they share, what the schedule says."""

    def __init__(self, world: NodesWorld, nursery: trio.Nursery) -> None:
        super().__init__(world, nursery)
        self._nodes = world

    def _enact(self, event: Event) -> None:
        match event:
            case schedule.HalfOpen():
                for network in self._networks:
                    network.cut(event.symbol)
            case schedule.NetworkDown():
                for network in self._networks:
                    network.go_down(event.seconds)
            case Cancel():
                self._cancel(event)
            case (
                schedule.NodeDies()
                | schedule.NodeStops()
                | schedule.NodePaused()
                | schedule.NodeCutOff()
                | schedule.NodeHearsLate()
                | schedule.NodeDeaf()
                | schedule.NodeMisses()
            ):
                self._trouble_node(event)
            case _:
                super()._enact(event)

    @property
    def _networks(self) -> Sequence[Network]:
        return [node.network for node in self._nodes.nodes]

    def _cancel(self, event: Cancel) -> None:
        if event.what == "client":
            Cancelling().arm(event, self._nodes.clients)
            return
        node = self._nodes.node(event.which)
        if node is not None:
            node.cancelling.arm(event, ())

    def _trouble_node(self, event: schedule.OfNodes) -> None:
        slot = self._nodes.slots[event.node % len(self._nodes.slots)]
        node, start_soon = slot.node, self._nursery.start_soon
        if node is None:
            return
        match event:
            case schedule.NodeDies() | schedule.NodeStops():
                is_orderly = isinstance(event, schedule.NodeStops)
                start_soon(slot.lose, event.after, is_orderly)
            case schedule.NodePaused():
                start_soon(node.be_paused, event.seconds)
            case schedule.NodeCutOff():
                start_soon(node.be_cut_off, event.way, event.seconds, event.hangs)
            case schedule.NodeHearsLate():
                start_soon(node.hear_late, event.seconds, event.delay)
            case schedule.NodeDeaf():
                start_soon(node.be_deaf, event.seconds)
            case schedule.NodeMisses():
                start_soon(node.miss, event.what, event.seconds)

    def _trouble_store(self, event: Event) -> None:
        server, start_soon = self._nodes.server, self._nursery.start_soon
        match event:
            case schedule.StoreDown():
                start_soon(server.be_down, event.seconds, event.hangs)
            case schedule.StoreLosesAnswer():
                server.to_lose.extend([(event.happens, event.hangs)] * event.times)
            case schedule.StoreFallsBack():
                server.fall_back(event.at - event.by)
            case schedule.StoreWiped():
                server.lose_all()
            case schedule.StoreSlow():
                start_soon(server.be_slow, event.seconds, event.delay)
