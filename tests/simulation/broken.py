"""Ways to break candlesync on purpose, one at a time: each is a mistake that somebody could make.

A `Break` patches the real code, and says with which events it shows, which invariant has to report it, and in which
words. A simulation that cannot see it is worth nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

import msgspec
import pytest
import trio

from candlesync import hub, synchronizer
from candlesync.binance import feed, parse, rest
from candlesync.core import absorb, merge, pending, replica, sync, wire
from candlesync.core.candle import Candle, Series
from candlesync.core.entry import Entry
from candlesync.core.interval import MINUTE, Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.errors import UnreadableAnswer
from candlesync.simulator import faults
from candlesync.simulator.settings import DEFAULT_START
from candlesync.web import session, subscription
from scripts.simulation import schedule
from scripts.simulation.draw import REMEMBERED
from scripts.simulation.schedule import Event

Patch = Callable[[pytest.MonkeyPatch], None]


class Break(msgspec.Struct, frozen=True):
    """One mistake."""

    patch: Patch
    invariant: str
    """That reports it first."""
    words: str
    """In what it reports."""
    events: tuple[Event, ...] = ()
    seed: int = 1
    store: str = "prompt"
    history: int = 60
    clients: int = 6
    days: float = 0.02
    nodes: int = 1
    audited: bool = True
    """Whether the audit may ask meanwhile: its question may be the second one without which a fill is too early."""


def at_minute(number: int) -> int:
    """The open time of a minute of the simulation."""
    return DEFAULT_START + number * MINUTE


BTC = "BTCUSDT"
DROPPED = (faults.Drop(at=400.0), faults.Refuse(at=400.0, seconds=400.0))
"""The stream is away for more than six minutes."""
OUTAGE = tuple(
    faults.Missing(
        at=300.0,
        symbol=BTC,
        seconds=REMEMBERED,
        interval=interval,
        open_times=(at_minute(7), at_minute(8)),
        stream=True,
    )
    for interval in (Interval.M1,)
)
HIDDEN = faults.Missing(at=300.0, symbol=BTC, seconds=500.0, open_times=(at_minute(7), at_minute(8)), stream=True)
"""Minutes that the exchange shows nobody for a while."""


# --- the tail, the gap, and what is final


def unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """The tail is not fetched again after a reconnect."""
    connected = sync.Sync.connected

    def broken(self: sync.Sync) -> None:
        confirmed = self._confirmed
        connected(self)
        self._confirmed = confirmed

    patch.setattr(sync.Sync, "connected", broken)


def appends_without_looking(patch: pytest.MonkeyPatch) -> None:
    """What the stream shows is put after the tail, whatever lies between; the store does not refuse it either."""

    def take(self: sync.Sync, found: absorb.Absorbed, tail: Candle) -> None:
        for candle in self._pending:
            if candle.open_time > tail.open_time:
                found.changes[candle.open_time] = found.tail = tail = candle
        self._gap = False

    patch.setattr(sync.Sync, "_take_pending", take)
    patch.setattr(replica.Replica, "_check_continuity", lambda _self, _commit: None)


def newest_row_is_final(patch: pytest.MonkeyPatch) -> None:
    """The newest row of an answer counts as closed."""
    read = parse.parse_rows

    def broken(body: bytes) -> tuple[Candle, ...]:
        return tuple(msgspec.structs.replace(row, closed=True) for row in read(body))

    patch.setattr(rest, "parse_rows", broken)


def unreadable_row_is_a_hole(patch: pytest.MonkeyPatch) -> None:
    """A row that cannot be read is left out of its answer."""
    read = parse.parse_rows

    def broken(body: bytes) -> tuple[Candle, ...]:
        rows = msgspec.json.decode(body, type=list[Any])
        good = []
        for row in rows:
            try:
                read(msgspec.json.encode([row]))
            except UnreadableAnswer:
                continue
            good.append(row)
        return read(msgspec.json.encode(good))

    patch.setattr(rest, "parse_rows", broken)


# --- what may change


def reopens(patch: pytest.MonkeyPatch) -> None:
    """A late forming state replaces a close, and the store takes it."""
    true_merge = merge.merge

    def broken(known: Candle, seen: Candle, source: merge.Source) -> Candle | None:
        return seen if known.closed and not seen.closed else true_merge(known, seen, source)

    for module in (sync, absorb, pending):
        patch.setattr(module, "merge", broken)
    patch.setattr(replica.Replica, "_check_change", lambda _self, _candle: None)


def loses_trades(patch: pytest.MonkeyPatch) -> None:
    """Any forming state replaces the one that is known."""
    patch.setattr(merge, "_is_later", lambda seen, known: seen != known)


def stream_corrects(patch: pytest.MonkeyPatch) -> None:
    """The stream's word changes a closed candle: a late state, taken for the close."""
    true_merge, frame = merge.merge, synchronizer.Synchronizer.frame

    def broken_merge(known: Candle, seen: Candle, _source: merge.Source) -> Candle | None:
        return true_merge(known, seen, merge.Source.REST)

    def broken_frame(self: synchronizer.Synchronizer, candle: Candle) -> None:
        tail = self.topic.replica.tail
        if tail is not None and tail.closed and tail.open_time == candle.open_time:
            candle = msgspec.structs.replace(candle, closed=True)
        frame(self, candle)

    for module in (sync, absorb, pending):
        patch.setattr(module, "merge", broken_merge)
    patch.setattr(synchronizer.Synchronizer, "frame", broken_frame)


# --- outages


def fills_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    """The second answer that lacks a minute makes an outage, however soon it comes."""
    note = sync.Sync._note_missing

    def broken(self: sync.Sync, found: absorb.Absorbed) -> None:
        note(self, found)
        if found.missing:
            self._paused, self._wait = True, None

    patch.setattr(sync.Sync, "_note_missing", broken)


def drops_closes(patch: pytest.MonkeyPatch) -> None:
    """While a series is syncing, one candle is kept and the others are dropped."""
    add = pending.Pending.add

    def broken(self: pending.Pending, candle: Candle) -> bool:
        return bool(not self._closed and not self._shown and add(self, candle))

    patch.setattr(pending.Pending, "add", broken)


# --- commit and publish


def publishes_first(patch: pytest.MonkeyPatch) -> None:
    """A live candle is shown, and then committed."""

    def broken(self: synchronizer.Synchronizer, candle: Candle, store: Any) -> bool:
        if self._doubts or self.topic.state is not sync.State.LIVE or self.topic.lock.locked():
            return False
        commit = self.sync.follow(candle)
        if commit is None:
            return False
        self.topic.publish(commit)
        store.commit_now(self.series, commit, token=self._token)
        self.sync.committed(commit)
        return True

    patch.setattr(synchronizer.Synchronizer, "_commit_now", broken)


def can_be_cancelled_in_between(patch: pytest.MonkeyPatch) -> None:
    """Between the store's answer and the hub something is awaited, and nothing shields it."""

    async def broken(self: synchronizer.Synchronizer, commit: Commit) -> None:
        await self._store.commit(self.series, commit, token=self._token)
        await trio.lowlevel.checkpoint()
        self.topic.publish(commit)
        self._committed(commit)

    patch.setattr(synchronizer.Synchronizer, "_commit", broken)


def takes_back(patch: pytest.MonkeyPatch) -> None:
    """A store that fell back is believed, whatever was served."""
    patch.setattr(replica.Replica, "is_ahead_of", lambda _self, _stored: False)


# --- what clients are sent


def skips_a_commit(patch: pytest.MonkeyPatch) -> None:
    """Every tenth time that a subscriber pulls, what it was to be sent is forgotten."""
    pull, turns = subscription.pull, count(1)

    def broken(subscriber: hub.Subscriber) -> list[bytes]:
        messages = pull(subscriber)
        return messages if next(turns) % 10 else []

    patch.setattr(session, "pull", broken)


def forgets_corrections(patch: pytest.MonkeyPatch) -> None:
    """What has changed since a revision is looked for among the newest candles only."""

    def broken(self: replica.Replica, revision: int) -> list[Entry]:
        return [entry for entry in self._by_time[-2:] if entry.revision > revision]

    patch.setattr(replica.Replica, "changed_since", broken)


def honours_in_part(patch: pytest.MonkeyPatch) -> None:
    """A position of another life is resumed from, as far as that goes."""
    patch.setattr(replica.Replica, "can_resume", lambda _self, _position: True)

    def pull(subscriber: hub.Subscriber) -> list[bytes]:
        topic = subscriber.topic
        entries = topic.replica.changed_since(subscriber.revision)
        subscriber.revision = topic.replica.revision
        return wire.catch_up(topic.series, entries, topic.replica.position)

    patch.setattr(session, "pull", pull)


def catches_up_backwards(patch: pytest.MonkeyPatch) -> None:
    """The newest candle of a catch-up comes first."""
    catch_up = wire.catch_up

    def broken(series: Series, entries: Sequence[Entry], position: Position) -> list[bytes]:
        return catch_up(series, entries[::-1], position)

    patch.setattr(wire, "catch_up", broken)


def tells_the_position_too_early(patch: pytest.MonkeyPatch) -> None:
    """The first message of a catch-up has its position."""

    def broken(series: Series, entries: Iterable[Entry], position: Position) -> list[bytes]:
        messages = [wire.encode(series, entry) for entry in entries]
        return [wire.with_position(messages[0], position), *messages[1:]] if messages else []

    patch.setattr(wire, "catch_up", broken)


# --- states and bounds


def always_live(patch: pytest.MonkeyPatch) -> None:
    """A series is said to be live as soon as it is connected."""
    patch.setattr(sync.Sync, "state", property(lambda self: sync.State.LIVE if self._connected else sync.State.STALE))


def tells_live_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    """REST's answer makes a series live, and what the answer has brought is committed after that."""
    ask = synchronizer.Synchronizer._ask

    async def broken(self: synchronizer.Synchronizer, question: sync.Ask) -> None:
        await ask(self, question)
        self._tell_state()

    patch.setattr(synchronizer.Synchronizer, "_ask", broken)


def tells_live_first(patch: pytest.MonkeyPatch) -> None:
    """A client is told that a series is live before it is sent what made it so."""

    def broken(self: session.ManySeries, subscriber: hub.Subscriber) -> list[bytes]:
        start = self._starts.pop(subscriber, None)
        candles = subscription.pull(subscriber) if start is None else subscription.begin(subscriber, start)
        state = subscription.pull_state(subscriber)
        name = session._name(subscriber.topic.series)
        told = [] if state is None else [session._encode({"op": "state", **name, "state": state.value})]
        return [*told, *candles]

    patch.setattr(session.ManySeries, "_messages", broken)


def keeps_all_closes(patch: pytest.MonkeyPatch) -> None:
    """What waits while a series is syncing has no bound."""
    init = pending.Pending.__init__

    def broken(self: pending.Pending, _history: int) -> None:
        init(self, 10**9)

    patch.setattr(pending.Pending, "__init__", broken)


def audits_nothing(patch: pytest.MonkeyPatch) -> None:
    """What the audit has found is not committed."""
    inspected = sync.Sync.inspected

    def broken(self: sync.Sync, rows: Sequence[Candle]) -> None:
        if self.state is not sync.State.LIVE:
            inspected(self, rows)

    patch.setattr(sync.Sync, "inspected", broken)


def dies_of_garbage(patch: pytest.MonkeyPatch) -> None:
    """A frame that is not what Binance documents takes the symbol's task with it."""

    def broken(_self: feed.Feed, _message: str | bytes, error: str) -> None:
        raise ValueError(error)

    patch.setattr(feed.Feed, "session_refuses", broken)


BREAKS: dict[str, Break] = {
    "the tail is not confirmed": Break(unconfirmed, "live", "unconfirmed since", DROPPED),
    "appended without looking": Break(appends_without_looking, "continuity", "is put after", OUTAGE),
    "the newest row is final": Break(newest_row_is_final, "final", "is not Row"),
    "an unreadable row is a hole": Break(
        unreadable_row_is_a_hole,
        "outage",
        "the exchange has it",
        (
            faults.Drop(at=400.0),
            faults.Refuse(at=400.0, seconds=900.0),
            faults.RestGarbage(at=400.0, seconds=1100.0, shape="wrong_types"),
        ),
    ),
    "a close is reopened": Break(
        reopens, "forming again", "after", (faults.Late(at=300.0, seconds=600.0, by_ms=25_000),)
    ),
    "trades are lost": Break(loses_trades, "trades", "after", (faults.Late(at=300.0, seconds=600.0, by_ms=25_000),)),
    "a close is changed by the stream": Break(
        stream_corrects, "correction", "in place of", (faults.Late(at=300.0, seconds=600.0, by_ms=25_000),)
    ),
    "filled without a pause": Break(fills_without_a_pause, "outage", "filled after the answers", OUTAGE, audited=False),
    "closes are dropped": Break(
        drops_closes,
        "outage",
        "the stream has shown it",
        (
            faults.Drop(at=370.0),
            faults.RestDown(at=369.0, seconds=300.0),
            faults.Missing(at=300.0, symbol=BTC, seconds=900.0, open_times=(at_minute(8), at_minute(9))),
        ),
    ),
    "published before the commit": Break(publishes_first, "published after commit", "no commit has made"),
    "cancelled between commit and publish": Break(
        can_be_cancelled_in_between,
        "one act",
        "is not published",
        tuple(
            schedule.Cancel(at=300.0 + 0.001 * steps + 7.3 * turn, what="series", which=turn, steps=steps)
            for turn, steps in enumerate((*range(1, 40),) * 2)
        ),
        store="remote",
    ),
    "a store that fell back is believed": Break(
        takes_back, "back in time", "is shown after", (schedule.StoreFallsBack(at=900.0, by=500.0),), store="remote"
    ),
    "a subscriber skips a commit": Break(skips_a_commit, "continuity", "Roamer", seed=2),
    "corrections are forgotten": Break(forgets_corrections, "everything", "not of revision", (HIDDEN,)),
    "too_old is honoured in part": Break(
        honours_in_part, "position", "after", (schedule.StoreWiped(at=500.0),), store="remote"
    ),
    "a catch-up goes backwards": Break(catches_up_backwards, "order", "in one catch-up"),
    "a position comes too early": Break(
        tells_the_position_too_early,
        "everything",
        "not of revision",
        (schedule.ClientVanishes(at=400.0, client=0, after=300.0),),
        clients=1,
    ),
    "always live": Break(always_live, "live", "is said to be live, unconfirmed", DROPPED),
    "live before the commit": Break(tells_live_before_the_commit, "live", "and REST has shown", DROPPED),
    "told live too early": Break(tells_live_first, "live", "told live at", DROPPED, seed=2),
    "closes wait without a bound": Break(
        keeps_all_closes,
        "bounded",
        "wait",
        (faults.Drop(at=400.0), faults.RestDown(at=390.0, seconds=6000.0, hang=True)),
        history=20,
        clients=0,
        days=0.08,
    ),
    "the audit mends nothing": Break(
        audits_nothing,
        "settled",
        "is stored, and the exchange has",
        (faults.Rewritten(at=400.0, symbol=BTC, seconds=REMEMBERED, open_times=(at_minute(25),)),),
        clients=0,
    ),
    "garbage kills": Break(dies_of_garbage, "alive", "BTCUSDT", (faults.Garbage(at=400.0, seconds=60.0),)),
}
"""Each mistake, and how it is seen."""
