"""Which node is to own which symbol. Pure: every node that sees the same nodes comes to the same answer.

The load of a node is the number of symbols placed on it. A symbol stays with its owner unless that helps: moving it to
a node whose load is smaller by two or more. So loads end up as equal as such moves make them (within one of each other
where every node wants every symbol), a node that comes takes its share and no more moves than that, and of a node that
goes only its own symbols move. Where loads do not decide, a hash of symbol and node does: nodes that are equal to a
count then share the symbols out among them, each other symbol differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b

import msgspec

from candlesync.core.interval import Interval


class Member(msgspec.Struct, frozen=True):
    """A node, as it describes itself to the others."""

    name: str
    """For people: such as ``host/4711``."""
    wants: dict[str, tuple[Interval, ...]] = {}
    """The symbols that it follows, and at which intervals."""
    owns: tuple[str, ...] = ()
    """The symbols of which it holds the lease."""


class Assembly:
    """The nodes that are there, by their identities, and what follows from that. Never changes."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self.members: Mapping[str, Member] = dict(members)
        self._owners = _owners(self.members)
        self._placements: dict[str, dict[str, str]] = {}

    def placement(self, without: str = "") -> Mapping[str, str]:
        """The node that is to own each symbol that some node wants, were ``without`` not there."""
        known = self._placements.get(without)
        if known is None:
            others = {node: member for node, member in self.members.items() if node != without}
            known = self._placements[without] = place(others)
        return known

    def rank(self, node: str, symbol: str, *, without: str = "", first: str = "") -> int:
        """How many nodes go before ``node`` when a symbol that has no owner is to be claimed.

        First goes ``first``, or if that does not want the symbol, the node with which it is placed. Last goes whoever
        does not want it, and ``without``: the node that has just owned it.
        """
        waiting = [name for name, member in self.members.items() if name != without and symbol in member.wants]
        if first not in waiting:
            first = self.placement(without).get(symbol, "")
        if node == first:
            return 0
        waiting.sort(key=lambda name: (name != first, _rank(symbol, name)))
        return waiting.index(node) if node in waiting else len(waiting)

    def owner(self, symbol: str) -> str:
        """The node that says that it owns a symbol; empty if none does."""
        return self._owners.get(symbol, "")

    def wanted_beside(self, node: str, symbol: str) -> set[Interval]:
        """The intervals at which other nodes than ``node`` want a symbol."""
        others = (member for name, member in self.members.items() if name != node)
        return {interval for member in others for interval in member.wants.get(symbol, ())}


def place(members: Mapping[str, Member]) -> dict[str, str]:
    """The node that is to own each symbol, of those that want it."""
    placing = _Placing(members)
    placing.share_out()
    placing.even_out()
    return placing.placed


class _Placing:
    """A placement in the making."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._loads = dict.fromkeys(sorted(members), 0)
        self.placed: dict[str, str] = {}
        for symbol, owner in _owners(members).items():
            if symbol in members[owner].wants:
                self._put(symbol, owner)

    def share_out(self) -> None:
        """Place what has no owner with the nodes that have least.

        The nodes are filled to the same level, and from there by one at a time. In one order of all pairs, rather than
        each next symbol with whoever has least: so a placement stays much the same while it comes true, and nodes that
        see different stages of that do not claim the same symbols.
        """
        unowned: dict[str, list[str]] = {}
        for node in self._loads:
            for symbol in self._members[node].wants:
                if symbol not in self.placed:
                    unowned.setdefault(symbol, []).append(node)
        # Those with the least choice first.
        pairs = sorted(
            (len(nodes), _rank(symbol, node), symbol, node) for symbol, nodes in unowned.items() for node in nodes
        )
        full = self._level(len(unowned), {node for nodes in unowned.values() for node in nodes})
        while pairs:
            left = []
            for pair in pairs:
                _, _, symbol, node = pair
                if symbol not in self.placed:
                    if self._loads[node] < full:
                        self._put(symbol, node)
                    else:
                        left.append(pair)
            pairs = left
            full += 1

    def even_out(self) -> None:
        """Move symbols from the most to the least loaded node, as long as there is one whose move helps.

        Each move makes the sum of the loads' squares smaller, so there is a last one.
        """
        movable = {node: _Wanted(node, self._members[node].wants) for node in self._loads}
        while (move := self._next_move(movable)) is not None:
            symbol, source, target = move
            self._loads[source] -= 1
            self._put(symbol, target)
            for wanted in movable.values():
                wanted.exhausted.discard(target)

    def _level(self, count: int, nodes: set[str]) -> int:
        """The load up to which so many symbols fill the nodes, like water, with less than one more for each left."""
        level = 0
        while nodes and sum(max(0, level + 1 - self._loads[node]) for node in nodes) <= count:
            level += 1
        return level

    def _next_move(self, movable: Mapping[str, _Wanted]) -> tuple[str, str, str] | None:
        ascending = sorted(self._loads, key=self._loads.__getitem__)
        for source in reversed(ascending):
            for target in ascending:
                if self._loads[source] - self._loads[target] < 2:
                    break
                symbol = movable[target].first_of(source, self.placed)
                if symbol is not None:
                    return symbol, source, target
        return None

    def _put(self, symbol: str, node: str) -> None:
        self.placed[symbol] = node
        self._loads[node] += 1


class _Wanted:
    """What one node wants, in the order in which it is given to it."""

    def __init__(self, node: str, wants: Mapping[str, object]) -> None:
        self._node = node
        self._wants = wants
        self._ordered: list[str] | None = None
        self.exhausted: set[str] = set()
        """The nodes that have nothing of it."""

    def first_of(self, source: str, placed: Mapping[str, str]) -> str | None:
        """The first of the symbols that are placed with ``source``, if there is one."""
        if source in self.exhausted:
            return None
        if self._ordered is None:  # not made before it is needed: when all is even it never is
            self._ordered = sorted(self._wants, key=lambda symbol: _rank(symbol, self._node))
        for symbol in self._ordered:
            if placed[symbol] == source:
                return symbol
        self.exhausted.add(source)
        return None


def _owners(members: Mapping[str, Member]) -> dict[str, str]:
    """Who says that it owns each symbol. Two do while one does not know yet that it has lost it: one is taken."""
    owners: dict[str, str] = {}
    for node, member in members.items():
        for symbol in member.owns:
            other = owners.get(symbol)
            if other is None or _rank(symbol, node) < _rank(symbol, other):
                owners[symbol] = node
    return owners


@lru_cache(maxsize=1 << 16)
def _rank(symbol: str, node: str) -> bytes:
    # `hash` is another in each process.
    return blake2b(f"{symbol} {node}".encode(), digest_size=8).digest()
