"""The hub: each series' replica, its state, and who is interested in it.

The hub publishes, a client that is behind pulls. `Topic.publish` changes the replica and marks each subscriber in its
`Outbox`; it never waits and keeps nothing for anybody. What a subscriber still has to be sent is then read from the
replica, by its position. So a client's memory is a set of positions, not a queue of messages (invariant 9), and a slow
client skips intermediate forming updates by itself, never a candle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import trio

from candlesync.core.candle import Series
from candlesync.core.replica import Commit, Entry, Replica, Snapshot
from candlesync.core.sync import State
from candlesync.errors import CandlesyncError


class Outbox:
    """Which of one socket's subscribers have something to be sent.

    A channel of capacity one wakes the socket's writer; however much is published meanwhile, that is all it costs.
    """

    def __init__(self) -> None:
        self._ready: dict[Subscriber, None] = {}
        self._wake, self._woken = trio.open_memory_channel[None](1)

    def offer(self, subscriber: Subscriber) -> None:
        """Mark a subscriber as having something to be sent. Never waits."""
        self._ready[subscriber] = None
        self.wake()

    def withdraw(self, subscriber: Subscriber) -> None:
        """Forget a subscriber that is gone."""
        self._ready.pop(subscriber, None)

    def wake(self) -> None:
        """Make `take` return. Never waits."""
        with suppress(trio.WouldBlock):  # then it is awake already
            self._wake.send_nowait(None)

    async def take(self) -> list[Subscriber]:
        """Wait until there may be something to send; the subscribers that have something, each once, oldest first."""
        await self._woken.receive()
        ready = list(self._ready)
        self._ready.clear()
        return ready


class Subscriber:
    """One client's interest in one series: a position, and what the client was told last."""

    __slots__ = ("life", "only_since", "outbox", "revision", "state", "topic")

    def __init__(self, topic: Topic, outbox: Outbox) -> None:
        self.topic = topic
        self.outbox = outbox
        self.life = topic.replica.life
        self.revision = topic.replica.revision
        """With ``life`` the position up to which the client has been sent everything."""
        self.only_since: int | None = None
        """Candles that open before this (milliseconds) are not asked for."""
        self.state: State | None = None
        """The state that the client was told last."""


class Topic:
    """One series on this node: what REST and WebSockets are served from."""

    def __init__(self, series: Series, history: int) -> None:
        self.series = series
        self.replica = Replica(series, history)
        self.subscribers: set[Subscriber] = set()
        self.state = State.STALE
        self.left_live_at: float | None = None
        """Since when the series is not live (trio time), if it ever was."""
        self.used_at = trio.current_time()
        """When somebody last asked for the series (trio time)."""
        self.failure = ""
        """Why the series has no candles, or no newer ones, in words; empty when all is well."""
        self.refusal: CandlesyncError | None = None
        """Why the series will never have candles."""
        self.lock = trio.Lock()
        """Held over read, decide, backfill, commit and publish: one at a time changes a series."""
        self.on_state_change: Callable[[], None] | None = None
        """Called after each change of the state; never waits."""
        self._begun = trio.Event()
        self.published = trio.Event()
        """Set, and replaced, at each change of the replica."""
        self.commits = 0

    @property
    def is_begun(self) -> bool:
        """Whether there are candles to serve."""
        return len(self.replica) > 0

    async def begun(self) -> None:
        """Wait until there are candles to serve; raises the series' refusal when there will be none."""
        await self._begun.wait()
        if self.refusal is not None:
            raise self.refusal

    def refuse(self, error: CandlesyncError) -> None:
        """There will be no candles: say so to everybody who waits for them."""
        self.refusal = error
        self._begun.set()

    def publish(self, commit: Commit) -> list[Entry]:
        """Show a commit, which the store holds, to everybody. Synchronous: nothing can come in between.

        The first commit of a life is shown in place of whatever was there. Raises as `Replica.apply` does.
        """
        begins_life = commit.begins and commit.life != self.replica.life
        entries = self.replica.begin_life(commit) if begins_life else self.replica.apply(commit)
        self.commits += 1
        self._changed()
        return entries

    def adopt(self, snapshot: Snapshot) -> None:
        """Become what the store holds, where this node's copy has fallen behind it or apart from it."""
        ours = self.replica.position
        if snapshot.position == ours:
            return
        if snapshot.life == ours.life and snapshot.revision < ours.revision:
            # The store went back within a life. Its revisions will mean something else from here on than they did to
            # those who have got the later ones: they load again.
            snapshot = msgspec.structs.replace(snapshot, trimmed=snapshot.revision)
            for subscriber in self.subscribers:
                subscriber.life = ""
        self.replica.restore(snapshot)
        self._changed()

    def set_state(self, state: State) -> None:
        """Tell everybody how true the series is."""
        if state is not self.state:
            if self.state is State.LIVE:
                self.left_live_at = trio.current_time()
            self.state = state
            for subscriber in self.subscribers:
                subscriber.outbox.offer(subscriber)
            if self.on_state_change is not None:
                self.on_state_change()

    def subscribe(self, outbox: Outbox) -> Subscriber:
        """Begin an interest; the caller sets its position before it waits for anything."""
        subscriber = Subscriber(self, outbox)
        self.subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End an interest."""
        self.subscribers.discard(subscriber)
        subscriber.outbox.withdraw(subscriber)
        self.touch()

    def touch(self) -> None:
        """Note that somebody wants the series."""
        self.used_at = trio.current_time()

    @property
    def idle_since(self) -> float | None:
        """Since when nobody has wanted the series (trio time); `None` while somebody subscribes."""
        return None if self.subscribers else self.used_at

    def _changed(self) -> None:
        self._begun.set()
        self.published.set()
        self.published = trio.Event()
        for subscriber in self.subscribers:
            subscriber.outbox.offer(subscriber)


class Hub:
    """All topics of this node."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._topics: dict[Series, Topic] = {}

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def __len__(self) -> int:
        return len(self._topics)

    def get(self, series: Series) -> Topic | None:
        """The topic of a series that is followed, or `None`."""
        return self._topics.get(series)

    def open(self, series: Series) -> Topic:
        """The topic of a series, made if need be."""
        topic = self._topics.get(series)
        if topic is None:
            topic = self._topics[series] = Topic(series, self._history)
        return topic

    def close(self, series: Series) -> None:
        """Drop the topic of a series that is followed no more. Its subscribers, if any, would hear nothing again."""
        self._topics.pop(series, None)
