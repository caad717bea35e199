"""Watches several nodes from outside: who owns a series is held against what the exchange has shown to it, as a single
service is, and who follows against what its owner had committed when it last can have heard of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import trio

from candlesync import hub
from candlesync.core.candle import Series
from candlesync.core.sync import State
from candlesync.service import Service

from .ledger import Ledger
from .network import Lack, Witness
from .node import Node
from .peer import Closed
from .shared import WatchedServer
from .truth import Truth
from .verdict import Verdict
from .view import View, read
from .watch import CLOSE_WITHIN, Watch

LATE_AT_MOST = 4.0
"""Seconds by which announcements are late: less than a position is waited for."""
ON_THE_WAY = 1.0
"""Seconds that a report and the answers of the store may take in all."""
OWNED_WITHIN = 80.0
"""Seconds in which a node that is well takes over what nobody owns: the lease has ended, and those have had their turn
that were to go first, and did not."""
AFTER_A_PAUSE = 2 * LATE_AT_MOST
"""Seconds in which a node that was paused has heard what it has missed."""


class ClaimantsWitness(Witness):
    """What the owner of each symbol was shown. What another node has seen, and has not committed, nobody knows."""

    def __init__(self, owner: Callable[[str], Node | None]) -> None:
        super().__init__()
        self._owner = owner
        self._of_fills: dict[tuple[Series, int], list[Lack]] = {}
        """The answers after which something was filled: with a fill that it has got from there another node begins a
        new life when the store has lost it."""
        self.ledger: Ledger

    def has_shown(self, series: Series, open_time: int) -> bool | None:
        """See `Witness.has_shown`. What is stored was shown to somebody."""
        owner = self._owner(series.symbol)
        shown = None if owner is None else owner.witness.shown[series].get(open_time)
        if shown is not None:
            return shown
        known = self.ledger.book(series).candles.get(open_time)
        return None if known is None or known[0].filled else known[0].closed

    def lacking(self, series: Series, open_time: int) -> list[Lack]:
        """See `Witness.lacking`."""
        owner = self._owner(series.symbol)
        answers = [] if owner is None else owner.witness.lacked[series, open_time]
        if answers:
            self._of_fills[series, open_time] = answers
        return self._of_fills.get((series, open_time), [])


class NodesView(View):
    """What a client has that goes from one node to another. It knows that a node may be behind what it has itself."""

    def load(self, body: bytes, position: str) -> None:
        """See `View.load`. Of a node that is behind it takes nothing, and comes again."""
        life, _, revision = position.partition("-")
        newest = self.candles.get(self.newest)
        if newest is not None:
            last = read(body)[-1]
            # Before: another life may be behind in time alone, this one in its revisions, too.
            is_older = (last["time"] * 1000, last["closed"], float(last["volume"])) < (
                *(self.newest, newest.said[5]),
                float(newest.said[4]),
            )
            if is_older or (life == self._life and int(revision) < self._revision):
                raise Closed(503, "the node is behind", is_refusal=True)
        super().load(body, position)


class NodesWatch(Watch):
    """All that is known of several nodes from outside."""

    server: WatchedServer
    nodes: Callable[[], Iterable[Node]]
    """Those that live."""

    def __init__(self, verdict: Verdict, witness: Witness, truth: Truth, history: int) -> None:
        super().__init__(verdict, witness, truth, history)
        self._unowned_since: dict[str, float] = {}
        self._well: dict[Node, float] = {}

    @property
    def lag(self) -> float:
        """Seconds for which a follower may take a series for live by an old report: as long as that counts.

        What it shows is no older.
        """
        return self.server.lease + LATE_AT_MOST + ON_THE_WAY

    def view(self, name: str, series: Series) -> View:
        """See `Watch.view`."""
        return NodesView(name, series, self.ledger, self.truth, self.verdict)

    def look(self, service: Service) -> None:
        """See `Watch.look`: at the service of one of the nodes."""
        now = trio.current_time()
        node = next(node for node in self.nodes() if node.service is service)
        for topic in service.hub:
            self.ledger.check_published(topic.series)
            if topic.state is not State.LIVE or _is_late(node):
                continue
            if not node.owns(topic.series.symbol):
                if node.live_since[topic] < now - self.lag:
                    self._check_in_step(topic)
            elif node.live_since[topic] < now - CLOSE_WITHIN:
                self._check_has_close(topic, node.witness)
        self._check_bounds(service)

    def look_at_owners(self, symbols: Iterable[str]) -> None:
        """Whether each symbol has an owner; to be called as often as `look`."""
        self._well = self._well_since()
        names = {node.name for node in self.nodes()}
        for symbol in symbols:
            if self.server.owner(symbol) in names:
                self._unowned_since.pop(symbol, None)
                continue
            since = self._unowned_since.setdefault(symbol, trio.current_time())
            well = [node.name for node, at in self._well.items() if max(at, since) < trio.current_time() - OWNED_WITHIN]
            self.verdict.expect(not well, "owned", "nobody owns {} since {}, and {} are well", symbol, since, well)

    def _well_since(self) -> dict[Node, float]:
        """The nodes that could take over a symbol, and since when they were each time that they were looked at."""
        if self.server.down or self.server.delay > self.server.lease / 4:
            return {}
        well = [node for node in self.nodes() if node.is_well and not _is_late(node)]
        return {node: self._well.get(node, trio.current_time()) for node in well}

    def _became_live(self, topic: hub.Topic) -> None:
        node = next((node for node in self.nodes() if node.service.hub.get(topic.series) is topic), None)
        if node is not None:
            node.live_since[topic] = trio.current_time()
        super()._became_live(topic)

    def _check_live(self, topic: hub.Topic, witness: Witness) -> None:  # noqa: ARG002 - each node has its own
        for node in self.nodes():
            if topic in node.live_since:
                if node.owns(topic.series.symbol):
                    super()._check_live(topic, node.witness)
                elif not _is_late(node):
                    self._check_in_step(topic)

    def _check_has_close(self, topic: hub.Topic, witness: Witness) -> None:
        closed, at = witness.closed.get(topic.series, (0, 0.0))
        tail = topic.replica.tail
        if at < trio.current_time() - CLOSE_WITHIN and tail is not None:
            self.verdict.expect(
                tail.open_time >= closed, "live", "{} is live at {}, without {}", topic.series, tail.open_time, closed
            )

    def _check_in_step(self, topic: hub.Topic) -> None:
        """A follower says that a series is live: it has all that was in the store as long ago as a report counts."""
        known, ours = self.server.stands[topic.series], topic.replica.position
        before = [stand for stand in known if stand.since <= trio.current_time() - self.lag]
        since = [stand for stand in known if stand.since > trio.current_time() - self.lag]
        if not before or any(stand.fell_back for stand in since):
            return
        was = before[-1]
        if ours.life != was.life and any(stand.life == ours.life for stand in since):
            return  # a life that has begun since then
        self.verdict.expect(
            ours.life == was.life and ours.revision >= was.revision,
            "live",
            "{} is said to be live by a follower at {}, and was at {}-{} {:.0f} s ago",
            *(topic.series, ours, was.life, was.revision, self.lag),
        )


def _is_late(node: Node) -> bool:
    """Whether a node is paused, or may not have heard yet what it has missed meanwhile."""
    return trio.current_time() < node.paused_until + AFTER_A_PAUSE
