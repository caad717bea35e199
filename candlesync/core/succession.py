"""When a node is to claim a symbol that it does not own. Pure: whoever asks says what time it is, in seconds.

- A symbol without an owner is claimed by one node after the other, until one has it. The successor that the last
  owner named goes first, or else the node with which the symbol is placed without that owner.
- An owner that died is known by its lease: it ends a lease after the owner was last heard of, or when the store says.
- But not while the store is away: then nobody can renew, and after it each owner has the time of another lease.
- A node that has just come to others who own something lets them go first: they may have been shown by an owner that
  has died what a store that fell back does not hold, and would make it good. What was named to it, it takes at once.
- Whoever has lost a symbol finds out first who is there now. Whoever has given one up to a successor lets a lease pass
  before it counts itself among those that wait.

All of this is only for order and speed. The store refuses every claim that is too early.
"""

from __future__ import annotations

import math

import msgspec

from candlesync.core.placement import Assembly

_BLIND_AFTER = 2.5
"""Beats without news of who is there, after which the store counts as away. That is after two of them were missed, and
before the end of any lease that was renewed at the beat before: nobody claims what its owner could not renew."""
_NEW_FOR = 2
"""Leases for which a node counts as one that has just come: by then nobody is left whose owner died before."""
_SOONEST = 0.001
"""Seconds until the end of a lease that ends now, as the store says: it is not asked again in the same moment."""


MOST = 10_000
"""Symbols of which something is known; Binance lists a third as many."""


class _Outlook(msgspec.Struct, frozen=True):
    """What is known of one symbol."""

    owner: str
    """The node that has it, or had it last; empty when no such node is known."""
    free_at: float
    """When its lease ends, or ended; infinite as long as it is to be found out who owns it."""
    successor: str = ""
    """The node that the owner named when it released it."""


class Succession:
    """What one node knows of the symbols that others own, or nobody."""

    def __init__(self, node: str, *, lease: float, beat: float, stagger: float) -> None:
        """Times in seconds: of a lease, between two news of who is there, between the claims of two nodes."""
        self.assembly = Assembly({})
        """Who was there at the last news."""
        self._node = node
        self._lease = lease
        self._beat = beat
        self._stagger = stagger
        self._outlooks: dict[str, _Outlook] = {}
        self._seen = -math.inf
        """When the last news was asked for."""
        self._new_until = -math.inf
        """Until when this node counts as one that has just come to others who own something."""
        self._claims_from = math.inf
        """When a symbol of which nothing is known may be claimed."""

    def learn(self, assembly: Assembly, *, asked: float, now: float) -> bool:
        """These nodes are there, as the store said when it was asked; whether a turn may come sooner for that."""
        was_blind = self._is_blind(asked)
        sooner = was_blind or assembly is not self.assembly
        self.assembly = assembly
        if self._seen == -math.inf and self._others_own:
            self._new_until = now + _NEW_FOR * self._lease
        if was_blind:
            # Nodes that start together know of each other after a beat; after an outage each owner renews first.
            begins = self._seen == -math.inf and not self._lets_others_go_first(now)
            self._claims_from = now + (self._beat if begins else self._lease)
        self._seen = asked
        for symbol, outlook in self._outlooks.items():
            if outlook.free_at == math.inf:
                self._outlooks[symbol] = self._first_outlook(symbol, now, free_at=now)
                sooner = True
            elif was_blind:
                free_at = max(outlook.free_at, self._claims_from)
                self._outlooks[symbol] = msgspec.structs.replace(outlook, free_at=free_at)
        return sooner

    def turn(self, symbol: str, now: float) -> float:
        """When to claim a symbol, or to ask here again; infinite as long as there is no telling before more news."""
        if self._is_blind(now):
            return math.inf
        outlook = self._outlooks.get(symbol)
        if outlook is None:
            free_at = max(now, self._claims_from)
            outlook = self._outlooks[symbol] = self._first_outlook(symbol, now, free_at=free_at)
        if outlook.free_at > now:
            return outlook.free_at
        rank = self.assembly.rank(self._node, symbol, without=outlook.owner, first=outlook.successor)
        if self._lets_others_go_first(now) and outlook.successor != self._node:
            return outlook.free_at + self._beat + len(self.assembly.members) * self._stagger
        # Of what nobody has owned yet the first may be a node that has just come, which lets a beat pass.
        pause = self._beat if rank and not outlook.owner else 0.0
        return outlook.free_at + pause + rank * self._stagger

    def reported(self, symbol: str, owner: str, now: float) -> None:
        """Another node has renewed its lease."""
        self._note(symbol, _Outlook(owner, now + self._lease))

    def refused(self, symbol: str, owner: str, seconds: float, now: float) -> None:
        """Another node has a lease that ends in so many seconds, unless it is renewed."""
        self._outlooks[symbol] = _Outlook(owner, now + max(seconds, _SOONEST))

    def released(self, symbol: str, owner: str, successor: str, now: float) -> None:
        """Another node has given a symbol up, to ``successor`` if it has named one."""
        self._note(symbol, _Outlook(owner, now, successor))

    def given_up(self, symbol: str, successor: str, now: float) -> None:
        """This node has given a symbol up, to ``successor`` if there was one to name; itself it goes last."""
        self._outlooks[symbol] = _Outlook(self._node, now + (self._lease if successor else 0.0))

    def lost(self, symbol: str, now: float) -> None:
        """The store has another token than this node had."""
        outlook = self._outlooks.get(symbol)
        if outlook is None or outlook.free_at <= now:
            self._outlooks[symbol] = _Outlook("", math.inf)

    def obtained(self, symbol: str) -> None:
        """This node has claimed a symbol."""
        self._outlooks.pop(symbol, None)

    def successor(self, symbol: str) -> str:
        """The node that is to have a symbol when this one gives it up; empty if no other wants it."""
        successor = self.assembly.placement().get(symbol, "")
        return successor if successor != self._node else self.assembly.placement(self._node).get(symbol, "")

    def _note(self, symbol: str, outlook: _Outlook) -> None:
        self._outlooks.pop(symbol, None)
        self._outlooks[symbol] = outlook
        if len(self._outlooks) > MOST:
            # Of what nothing was heard for longest nothing is known any more: it is found out again.
            del self._outlooks[next(iter(self._outlooks))]

    def _first_outlook(self, symbol: str, now: float, *, free_at: float) -> _Outlook:
        """Of a symbol of which nothing was heard: whoever says that it owns it may have renewed its lease just now."""
        owner = self.assembly.owner(symbol)
        return _Outlook("", free_at) if owner in ("", self._node) else _Outlook(owner, now + self._lease)

    def _lets_others_go_first(self, now: float) -> bool:
        return now < self._new_until and self._others_own

    @property
    def _others_own(self) -> bool:
        return any(member.owns for node, member in self.assembly.members.items() if node != self._node)

    def _is_blind(self, now: float) -> bool:
        return now - self._seen > _BLIND_AFTER * self._beat
