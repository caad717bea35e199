"""The store that several nodes share: that of the tests, which passes the contract of the Redis one, with the books.

Beside the books of the series this keeps one of the claims: who has claimed a symbol last, and with which token.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.replica import Commit
from candlesync.core.report import Release
from candlesync.errors import Fenced, StoreUnavailable
from tests.shared_store import NodeStore, Saved, SharedMemory

from .ledger import Ledger
from .verdict import Verdict

TRAVEL = 0.001
"""Seconds from a question to its answer."""
STANDS = 1_000
"""Of each series: there are some commits a minute, and none is looked for after half a minute."""
NOTHING = Saved({}, {}, {}, {})
NO_ANSWER = 2.0
"""Seconds that the Redis store waits for an answer."""


class Stand(msgspec.Struct, frozen=True):
    """Where a series was in the store."""

    since: float
    """Seconds of the simulation."""
    life: str
    revision: int
    fell_back: bool = False
    """Whether it came there by falling back."""


class WatchedServer(SharedMemory):
    """The server, whose claims and commits are entered in the books before anybody is told of them."""

    def __init__(self, lease: float, ledger: Ledger, verdict: Verdict, copied_at: Iterable[float]) -> None:
        """``copied_at`` are the moments of the copies that it will be replaced by."""
        super().__init__(ledger.history, lease)
        self.ledger = ledger
        self.owners_known: dict[str, tuple[str, int]] = {}
        """By symbol: the node that has claimed it last and has not released it, and its token."""
        self.to_lose: deque[tuple[bool, bool]] = deque()
        """The answers that commits to come do not get: whether it happens, and whether the question hangs."""
        self.on_claim: Callable[[str, str], None] = lambda _node, _symbol: None
        """Called when a node has claimed a symbol."""
        self.claims = 0
        self.fenced = 0
        """Calls that were refused for their token."""
        self.stands: dict[Series, deque[Stand]] = defaultdict(partial(deque, maxlen=STANDS))
        """Where each series was of late."""
        self._verdict = verdict
        self.delay = TRAVEL
        """Seconds from a question to its answer."""
        self._down_until = 0.0
        self._tokens_used: set[int] = set()
        self._copied_at = sorted(copied_at)
        self._copies: dict[float, tuple[Saved, dict[str, tuple[str, int]]]] = {}

    def node(self, identity: str) -> WatchedNodeStore:
        """See `SharedMemory.node`."""
        made = WatchedNodeStore(self, identity)
        self.nodes[identity] = made
        return made

    async def run(self) -> None:
        """Be copied when it is time."""
        for time in self._copied_at:
            await trio.sleep_until(time)
            self._copies[time] = self.snapshot(), dict(self.owners_known)

    async def be_down(self, seconds: float, hangs: bool) -> None:
        """Answer nobody for a while; what is asked fails at once or after a while."""
        self._down_until = max(self._down_until, trio.current_time() + seconds)
        for node in self.nodes.values():
            node.patience = NO_ANSWER if hangs else 0.0
        self.down = True
        await trio.sleep(seconds)
        self.down = trio.current_time() < self._down_until

    async def be_slow(self, seconds: float, delay: float) -> None:
        """Take ``delay`` seconds for each answer, for a while."""
        self._be_away(delay)
        await trio.sleep(seconds)
        self._be_away(TRAVEL)

    def fall_back(self, copied_at: float) -> None:
        """Become the copy of that moment: of before there was anything, an empty one. Connections are made anew."""
        saved, owners = self._copies.pop(copied_at, (NOTHING, {}))
        was_down, self.down = self.down, True
        self.rollback(saved)
        self.owners_known = owners
        self._note_fall(saved)
        self.down = was_down

    def lose_all(self) -> None:
        """Be empty; connections stay."""
        self.wipe()
        self.owners_known = {}
        self._note_fall(NOTHING)

    # --- what is entered in the books

    def claim(self, node: str, symbol: str) -> int:
        """See `SharedMemory.claim`."""
        token = super().claim(node, symbol)
        self._verdict.expect(token not in self._tokens_used, "fenced", "{}: token {} comes again", symbol, token)
        self.claims += 1
        self._tokens_used.add(token)
        self.owners_known[symbol] = node, token
        self.on_claim(node, symbol)
        return token

    def release(self, symbol: str, release: Release, token: int) -> None:
        """See `SharedMemory.release`."""
        super().release(symbol, release, token)
        self.owners_known.pop(symbol, None)

    def check(self, symbol: str, token: int) -> None:
        """See `SharedMemory.check`."""
        try:
            super().check(symbol, token)
        except Fenced:
            self.fenced += 1
            raise

    def _made(self, series: Series, commit: Commit, token: int) -> None:
        owner, its_token = self.owners_known.get(series.symbol, ("nobody", 0))
        self._verdict.expect(
            token == its_token,
            "fenced",
            "{}: {} was committed with token {}, and {} has claimed the symbol with {}",
            *(series, commit.position, token, owner, its_token),
        )
        self.ledger.committed(series, commit)
        self.stands[series].append(Stand(trio.current_time(), commit.life, commit.revision))

    def _be_away(self, delay: float) -> None:
        self.delay = delay
        for node in self.nodes.values():
            node.latency = delay

    def _note_fall(self, saved: Saved) -> None:
        self.ledger.fell_back(saved.series)
        for series, stands in self.stands.items():
            book = self.ledger.book(series)
            stands.append(Stand(trio.current_time(), book.life, book.revision, fell_back=True))


class WatchedNodeStore(NodeStore):
    """One node's way to it; what it is told of its commits is entered in the books, too."""

    def __init__(self, server: WatchedServer, identity: str) -> None:
        super().__init__(server, identity)
        self.latency = server.delay
        self._books = server

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """See `Store.commit`."""
        call = partial(super().commit, series, commit, token=token)
        if self._books.to_lose:
            happens, hangs = self._books.to_lose.popleft()
            if happens:
                await call()
            await trio.sleep(NO_ANSWER if hangs else 0.0)
            raise StoreUnavailable("the answer was lost")
        await call()
        # The task that is told so now publishes it in this same moment.
        self._books.ledger.answered(series, commit)
