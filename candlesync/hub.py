"""The hub: each series' replica, its state, and who is interested in it.

The hub publishes, a client that is behind pulls. `Topic.publish` changes the replica and marks each subscriber in its
`Outbox`; it never waits and keeps nothing for anybody. What a subscriber still has to be sent is then read from the
replica, by its position. So a client's memory is a set of positions, not a queue of messages (invariant 9), and a slow
client skips intermediate forming updates by itself, never a candle.

Most clients are not behind. One that has everything, and whose connection takes frames (a `Line`), is parked: the
commit's frame, made once, is written to its socket then and there, and no task is woken. Whoever cannot be written to,
or must be told something else first, is marked, and pulls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import trio

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.entry import Entry
from candlesync.core.histogram import MOMENTS, SPELLS, Histogram
from candlesync.core.pending import Pending
from candlesync.core.replica import Commit, Replica, Snapshot
from candlesync.core.sync import State
from candlesync.errors import CandlesyncError


class Outlet(Protocol):
    """Where a commit's frames can go at once."""

    def offer(self, frames: bytes) -> int:
        """Write frames at once, or none or a part of them; how many bytes were taken. Never waits.

        The rest of a part goes out at the next `Line.push`, before anything else. One that speaks another language
        writes something else in their place, and answers as if it were they.
        """
        ...


class Line(Outlet, Protocol):
    """A client's connection that takes WebSocket frames, whole and in order; see ``edge.line``."""

    async def push(self, frames: bytes) -> bool:
        """Send what is left over and then these frames; whether nothing had to be waited for."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether the client is gone: what it was sent last may not have reached it, and nothing will."""
        ...


class HeardLine(Line, Protocol):
    """The same of a client of which it is known whether it is there."""

    @property
    def heard_at(self) -> float:
        """When the client was last heard of (trio time): it had most of what it had been sent by then."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether it has not answered a ping in time: what it was sent since it was heard of may be lost."""
        ...

    async def is_there(self) -> bool:
        """Whether the client, pinged now, is heard of in time; takes some seconds when it is not."""
        ...


class Outbox:
    """Which of one socket's subscribers have something to be sent.

    However much is published before they are taken, a mark is all that it costs.
    """

    def __init__(self, on_ready: Callable[[], None]) -> None:
        """``on_ready`` is called when the first subscriber is marked since all were taken. It must not wait."""
        self._on_ready = on_ready
        self._ready: dict[Subscriber, None] = {}

    def offer(self, subscriber: Subscriber) -> None:
        """Mark a subscriber as having something to be sent. Never waits."""
        if subscriber not in self._ready:
            is_first = not self._ready
            self._ready[subscriber] = None
            if is_first:
                self._on_ready()

    def holds(self, subscriber: Subscriber) -> bool:
        """Whether the subscriber is marked."""
        return subscriber in self._ready

    def withdraw(self, subscriber: Subscriber) -> None:
        """Forget a subscriber that is gone."""
        self._ready.pop(subscriber, None)

    def take(self) -> list[Subscriber]:
        """The subscribers that have something, each once, oldest first; they are marked no more."""
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
        """With ``life`` the position up to which the client has been sent everything; of one that is parked, the
        topic's own position is that."""
        self.only_since: int | None = None
        """Candles that open before this (milliseconds) are not asked for."""
        self.state: State | None = None
        """The state that the client was told last."""


class HubStatistics:
    """How what the topics of a hub published reached their clients, since the hub was made."""

    def __init__(self) -> None:
        self.fan_outs = Histogram(MOMENTS)
        """Seconds that a commit took to be written to all who are parked, where anybody was."""
        self.not_live = Histogram(SPELLS)
        """Seconds for which a series was not live, each time that it is live again."""


class Topic:
    """One series on this node: what REST and WebSockets are served from."""

    def __init__(self, series: Series, history: int, statistics: HubStatistics | None = None) -> None:
        """``statistics`` keeps how long things took."""
        self.series = series
        self._statistics = HubStatistics() if statistics is None else statistics
        self.replica = Replica(series, history)
        self.pending = Pending(history)
        """What the stream has shown here and the replica does not have yet. It outlives a synchronizer: where REST is
        behind of what that was shown, the next one would call the series whole."""
        self._parked: dict[Subscriber, Outlet] = {}
        self._pulling: dict[Subscriber, None] = {}  # in the order in which they came, which a set would not keep
        self.written = 0
        """Messages that were written to parked subscribers."""
        self.state = State.STALE
        self.left_live_at: float | None = None
        """Since when the series is not live (trio time), if it ever was."""
        self.used_at = self.made_at = trio.current_time()
        """When somebody last asked for the series, and since when it is here (trio time)."""
        self.failure = ""
        """Why the series has no candles, or no newer ones, in words; empty when all is well."""
        self.failing_until = -math.inf
        """Before this nothing is tried again (trio time); says nothing when there is no failure."""
        self.is_pinned = False
        """Whether the series is wanted whoever is there."""
        self.refusal: CandlesyncError | None = None
        """Why the series will never have candles."""
        self.lock = trio.Lock()
        """Held over read, decide, backfill, commit and publish: one at a time changes a series."""
        self.on_state_change: Callable[[], None] | None = None
        """Called after each change of the state; never waits."""
        self._begun = trio.Event()
        self._awaiting_change = trio.lowlevel.ParkingLot()
        self.commits = 0

    @property
    def is_begun(self) -> bool:
        """Whether there are candles to serve."""
        return len(self.replica) > 0

    @property
    def reason(self) -> str:
        """The failure, and in how many seconds it can be over; empty when all is well."""
        seconds = self.failing_until - trio.current_time()
        return f"{self.failure}; tried again in {seconds:.0f} s" if self.failure and seconds >= 1 else self.failure

    async def begun(self) -> None:
        """Wait until there are candles to serve; raises the series' refusal when there will be none."""
        await self._begun.wait()
        if self.refusal is not None:
            raise self.refusal

    async def changed(self) -> None:
        """Wait until the replica has changed."""
        await self._awaiting_change.park()

    def refuse(self, error: CandlesyncError) -> None:
        """There will be no candles: say so to everybody who waits for them."""
        self.refusal = error
        self._begun.set()

    def publish(self, commit: Commit) -> list[Entry]:
        """Show a commit, which the store holds, to everybody. Synchronous: nothing can come in between.

        The first commit of a life is shown in place of whatever was there. Raises as `Replica.apply` does.
        """
        replica = self.replica
        begins_life = commit.begins and commit.life != replica.life
        before, tail = replica.revision, replica.tail
        entries = replica.begin_life(commit) if begins_life else replica.apply(commit)
        self.commits += 1
        if self._parked:
            # What the parked are to be sent is this commit, if the history still holds all of it, and if each of them
            # wants all of it: an older candle that is corrected may open before what a client asked for.
            is_plain = not commit.begins and tail is not None and entries[0].open_time >= tail.open_time
            if is_plain and replica.trimmed <= before:
                self._write(entries, before)
            else:
                self._unpark_all(before)
        self._note_change()
        return entries

    def adopt(self, snapshot: Snapshot) -> None:
        """Become what the store holds, where this node's copy has fallen behind it or apart from it."""
        ours = self.replica.position
        if snapshot.life == ours.life and not self.replica.continues_in(snapshot):
            # The store went back within a life. Its revisions mean something else from there on than they did to those
            # who have got the later ones: they load again.
            snapshot = msgspec.structs.replace(snapshot, trimmed=snapshot.revision)
            for subscriber in self.subscribers:
                subscriber.life = ""
        elif snapshot.position == ours:
            return
        self._unpark_all(ours.revision)
        self.replica.restore(snapshot)
        self._note_change()

    def set_state(self, state: State) -> None:
        """Tell everybody how true the series is."""
        if state is not self.state:
            if self.state is State.LIVE:
                self.left_live_at = trio.current_time()
            elif state is State.LIVE and self.left_live_at is not None:
                self._statistics.not_live.observe(trio.current_time() - self.left_live_at)
            self.state = state
            # What is said of the state has its place among the candles: it goes the same way.
            self._unpark_all(self.replica.revision)
            self._offer_all()
            if self.on_state_change is not None:
                self.on_state_change()

    def subscribe(self, outbox: Outbox) -> Subscriber:
        """Begin an interest; the caller sets its position before it waits for anything."""
        subscriber = Subscriber(self, outbox)
        self._pulling[subscriber] = None
        return subscriber

    def park(self, subscriber: Subscriber, line: Outlet) -> None:
        """Write the commits to come to this line, if the client has everything until now; else nothing is changed.

        The caller has sent all that it pulled, and sends nothing more for this subscriber until it is marked again.
        """
        replica = self.replica
        # A client that asked for candles from a later time on is to be sent none of those before.
        is_early = subscriber.only_since is not None and (
            replica.tail is None or replica.tail.open_time < subscriber.only_since
        )
        if (
            subscriber in self._pulling
            and not subscriber.outbox.holds(subscriber)
            and (subscriber.life, subscriber.revision) == (replica.life, replica.revision)
            and not is_early
        ):
            self._pulling.pop(subscriber, None)
            self._parked[subscriber] = line

    def unsubscribe(self, subscriber: Subscriber) -> None:
        """End an interest."""
        self._pulling.pop(subscriber, None)
        self._parked.pop(subscriber, None)
        subscriber.outbox.withdraw(subscriber)
        self.touch()

    def touch(self) -> None:
        """Note that somebody wants the series."""
        self.used_at = trio.current_time()

    @property
    def idle_since(self) -> float | None:
        """Since when nobody has wanted the series (trio time); `None` while somebody subscribes."""
        return None if self._pulling or self._parked else self.used_at

    @property
    def is_looked_at(self) -> bool:
        """Whether somebody would notice first that the series is not live: it is pinned, or has a subscriber."""
        return self.is_pinned or self.idle_since is None

    @property
    def subscribers(self) -> set[Subscriber]:
        """Everybody with an interest."""
        return {*self._pulling, *self._parked}

    def _note_change(self) -> None:
        self._begun.set()
        self._awaiting_change.unpark_all()
        self._offer_all()

    def _offer_all(self) -> None:
        for subscriber in self._pulling:
            subscriber.outbox.offer(subscriber)

    def _write(self, entries: list[Entry], before: int) -> None:
        """Write a commit to all who are parked, and are at the revision before it. Never waits."""
        replica = self.replica
        messages = wire.catch_up(self.series, entries, replica.position)
        frames = b"".join(map(wire.frame, messages))
        if len(frames) > wire.BATCH:
            self._unpark_all(before)
            return
        began = trio.current_time()
        takes = [line.offer(frames) for line in self._parked.values()]
        self._statistics.fan_outs.observe(trio.current_time() - began)
        self.written += len(messages) * (len(takes) - takes.count(0))
        if takes.count(len(frames)) == len(takes):
            return
        for subscriber, taken in list(zip(self._parked, takes, strict=True)):
            if taken < len(frames):
                # What was begun goes out whole, so its client has it; of what was not begun it has nothing.
                self._unpark(subscriber, replica.revision if taken else before)

    def _unpark(self, subscriber: Subscriber, revision: int) -> None:
        """Let a subscriber pull again, from a revision of the present life on."""
        del self._parked[subscriber]
        subscriber.revision = revision
        self._pulling[subscriber] = None
        subscriber.outbox.offer(subscriber)

    def _unpark_all(self, revision: int) -> None:
        for subscriber in list(self._parked):
            self._unpark(subscriber, revision)


class Hub:
    """All topics of this node."""

    def __init__(self, history: int) -> None:
        self._history = history
        self._topics: dict[Series, Topic] = {}
        self.statistics = HubStatistics()
        self.commits_gone = 0
        """Published by topics that are gone."""
        self._written = 0

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def written(self) -> int:
        """Messages that were written to parked subscribers, of the topics that are gone too."""
        return self._written + sum(topic.written for topic in self._topics.values())

    def get(self, series: Series) -> Topic | None:
        """The topic of a series that is followed, or `None`."""
        return self._topics.get(series)

    def open(self, series: Series) -> Topic:
        """The topic of a series, made if need be."""
        topic = self._topics.get(series)
        if topic is None:
            topic = self._topics[series] = Topic(series, self._history, self.statistics)
        return topic

    def close(self, series: Series) -> None:
        """Drop the topic of a series that is followed no more. Its subscribers, if any, would hear nothing again."""
        topic = self._topics.pop(series, None)
        if topic is not None:
            self._written += topic.written
            self.commits_gone += topic.commits
