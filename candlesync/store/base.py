"""The store's contract.

A store keeps series, each continuous (invariant 1), and changes one only by a *commit*: an atomic compare-and-set that
either happens whole or not at all. Every implementation passes ``tests/store/contract.py``.

- **Revision.** A commit names the life and the revision that it makes. The store refuses it with `RevisionConflict`
  unless the series is at that life and at the revision just before. The first commit of a life *begins* the series with
  revision 1; a commit that begins within a life (after a gap longer than the history) takes the next revision, and
  leaves only its own candles.
- **Continuity.** The store checks invariants 1 and 3 itself and refuses with `NotContinuous`; no caller can break them.
- **Fencing.** A commit carries the symbol's current fencing token. `Store.claim` makes a new token, never used before,
  and so fences off whoever had the last one: tokens are compared for equality, and any other gets `Fenced`.
- **Lease.** In a store that several nodes share (`SharedStore`) a claim takes the symbol's lease too, and the claim of
  another node is refused with `Leased` until that lease has ended, or was released. A lease that has ended is no reason
  to refuse a commit: only the next claim is.
- **History.** After a commit the oldest candles beyond the history length are gone, and the snapshot's ``trimmed`` is
  the greatest revision among all that ever left so.
- **Unknown outcome.** A commit that is cancelled or that fails in another way than by one of the refusals above may or
  may not have happened, and the store does not try it again. Whoever wants to know reads the series.
- **Unavailable.** A store outside of the process raises `StoreUnavailable` from any method, within a time of its own,
  when it cannot be asked or does not answer usably.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import trio

from candlesync.core.candle import Series
from candlesync.core.departure import Found, Stop
from candlesync.core.placement import Member
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.report import Release, Report

ASK_AGAIN_FIRST = 0.25
"""Seconds that pass before the question after one without an answer of use; doubles each time, to the cap."""
ASK_AGAIN_CAP = 4.0
"""Seconds. A store that is back is noticed within so long, and asked by 500 series 125 times a second at most."""


class Store(Protocol):
    """Where series are kept."""

    async def claim(self, symbol: str) -> int:
        """Take over the writing of a symbol's series: a new fencing token, which makes every earlier one invalid.

        Raises `Leased` while another node holds the symbol's lease. A node may claim again what it holds.
        """
        ...

    async def read(self, series: Series) -> Snapshot | None:
        """The whole series at one revision, or `None` if there is none."""
        ...

    async def position(self, series: Series) -> Position | None:
        """Where the series is, without its candles; `None` if there is none."""
        ...

    async def commit(self, series: Series, commit: Commit, *, token: int) -> None:
        """Make one atomic change.

        Raises, with nothing changed, `RevisionConflict`, `NotContinuous` or `Fenced`.
        """
        ...

    async def forget(self, series: Series, *, token: int) -> None:
        """Drop a series that nobody follows any more, where keeping it would cost this process's memory.

        A store outside of the process keeps it. Raises `Fenced`.
        """
        ...


@runtime_checkable
class PromptStore(Store, Protocol):
    """A store inside of this process: it has nothing to wait for."""

    def commit_now(self, series: Series, commit: Commit, *, token: int) -> None:
        """`Store.commit` without an await, for whoever may not wait or be interrupted: it happens whole, or raises."""
        ...


class Audience(Protocol):
    """Who is told what the nodes of a `SharedStore` announce. Called in Trio's thread; none of it may wait.

    What is announced of one symbol arrives in the order in which it happened; also what this node itself has announced.
    Nothing is repeated: what was announced while nobody was listening is lost, and to be read.
    """

    def listening(self) -> None:
        """From now on everything is heard; what was announced before may have been missed."""
        ...

    def deaf(self, reason: str) -> None:
        """Until `listening` is called again nothing may be heard."""
        ...

    def committed(self, series: Series, commit: Commit) -> None:
        """A commit stands in the store."""
        ...

    def moved(self, series: Series, position: Position) -> None:
        """A commit stands in the store that was too large to be announced: it is to be read."""
        ...

    def reported(self, symbol: str, report: Report) -> None:
        """The symbol's owner says how its series are."""
        ...

    def released(self, symbol: str, release: Release) -> None:
        """The symbol's owner has given it up."""
        ...

    def assembled(self) -> None:
        """A node has come, has left, or describes itself anew: `SharedStore.attend` tells who is there."""
        ...


class SharedStore(Store, Protocol):
    """A store that several nodes share: leases, who is there, and what they tell each other.

    Its times are the store's own: no node's clock is compared with another's. Every method raises `StoreUnavailable`.
    """

    node: str
    """This node's identity: never used by another node, nor by an earlier process."""
    lease: float
    """Seconds that a lease lasts, and that a node counts as there, after each renewal."""

    async def renew(self, symbol: str, report: Report, *, token: int) -> None:
        """Keep the lease for its full length from now, and announce ``report``.

        Does so as well when the lease has ended but nobody has claimed the symbol since. Raises `Fenced` when somebody
        has, or the store has lost what it knew of it.
        """
        ...

    async def release(self, symbol: str, release: Release, *, token: int) -> None:
        """Give the symbol up, and announce it. The token is void from then on. Raises `Fenced` as `renew` does."""
        ...

    async def attend(self, member: Member) -> Mapping[str, Member]:
        """Say that this node is there, as ``member`` describes it; every node that is there, by its identity.

        A node that has not attended for the length of a lease is not there any more. When ``member`` is not what it
        was the last time, this is announced.
        """
        ...

    async def leave(self) -> None:
        """Say that this node is not there any more; announced."""
        ...

    async def keep_departures(self, present: Sequence[Stop], departed: Sequence[Stop], *, ends: bool = False) -> int:
        """Keep up where this node's streams are, and add where some of them stopped; both at once.

        ``present`` says what has changed since the last call. It also says that this node is there: when it has not
        been called for the length of a lease, and `core.departure.ALIVE` at most, this node's present streams count as
        departed; with ``ends`` at once. Of how many keys it has present streams. A thousand stops a call at most: a
        server does nothing else meanwhile. All is kept for `core.departure.KEPT` seconds after a stream's or its
        node's end.
        """
        ...

    async def take_departures(self, keys: Sequence[str], asked_at: int) -> tuple[int, list[Found]]:
        """Take over one departed stream of each key, whichever node's it was: each is given once.

        The latest counts; of those that left within `core.departure.TOGETHER` seconds of it the earliest place. This
        node's present streams are not considered. ``asked_at`` is 0 in the first call, which gives the time that is to
        be named when the doubtful ones are asked for again. A hundred keys a call at most.
        """
        ...

    async def listen(
        self, audience: Audience, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Tell ``audience`` what is announced, until cancelled, whatever becomes of the connection meanwhile.

        Starts at once, not when the store has answered: `Audience.listening` says when that is. Raises
        what the audience raises.
        """
        ...
