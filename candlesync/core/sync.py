"""How one series is kept continuous: events in, decisions out, and never an await.

The synchronizer tells a `Sync` what happened (connected, frame, answered, …) and asks it what to do (`decide`). Four
phases follow from what is known, none of them is stored:

    EMPTY        nothing is in the series: ask REST for the newest candles, and begin with them
    UNCONFIRMED  the tail was out of sight: no REST answer, asked for after the (re)connect, has confirmed it yet
    GAP          the stream shows candles that do not follow the tail: ask REST from the tail on
    WHOLE        the tail is the newest that is known; frames are committed as they come

    EMPTY ──answer──▶ UNCONFIRMED ──answer──▶ WHOLE ◀──answer or late close── GAP
                           ▲                    │ └──a frame that does not follow──▲
                           └────(re)connect─────┘ (from any phase)

A store that holds less than was served (it was wiped, or an old copy of it promoted) comes before all of these: a new
life is begun there with the candles of the replica.

Decisions: a `Commit` to make, an `Ask` to put to REST, a `Wait` before asking again, or `Idle` until the next event.
What is true of each candle comes from `merge`; what may stand in a series from `Replica.apply`; what an answer says of
the series from `absorb`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum

import msgspec

from candlesync.core.absorb import Absorbed, Evidence, absorb, refill
from candlesync.core.candle import Candle, same_values
from candlesync.core.gap import Gap
from candlesync.core.merge import Source, merge
from candlesync.core.pending import Pending
from candlesync.core.replica import Commit, Replica


class State(Enum):
    """What a client is told of a series (design, section 3)."""

    LIVE = "live"
    """Connected and whole."""
    SYNCING = "syncing"
    """True up to the tail, catching up."""
    STALE = "stale"
    """No feed: true as of the tail."""


class Rules(msgspec.Struct, frozen=True):
    """The numbers of the sync; times in seconds."""

    history: int = 1000
    """Candles a series holds at most."""
    page: int = 1000
    """Rows of a full REST answer: Binance's own limit of a klines request."""
    later_row_first: float = 0.25
    """First wait for REST to show what the stream has shown; doubles with each answer that does not, to the cap."""
    later_row_cap: float = 3.0
    """A request of weight 2 each 3 s is 40 of the 6,000 a minute, however long REST stays behind."""
    retry_first: float = 0.5
    """First wait after REST could not be asked; doubles with each failure, to the cap."""
    retry_cap: float = 15.0
    outage_pause: float = 5.0
    """A minute that REST does not show is asked for again after this long before it counts as an outage."""
    outage_patience: int = 12
    """How often a minute that the stream showed, but REST never did, is asked for before it is closed as shown."""


class Ask(msgspec.Struct, frozen=True):
    """Ask REST: for the rows from ``start`` (milliseconds) on, or for the newest ``Rules.history`` when `None`."""

    start: int | None
    connection: int
    """Which connection was subscribed when it was asked: an answer from before confirms nothing."""


class Wait(msgspec.Struct, frozen=True, eq=False):
    """Nothing to do for ``seconds``, or until the next event; then call `Sync.waited`, and decide again."""

    seconds: float
    outage: bool = False


class Idle(msgspec.Struct, frozen=True):
    """Nothing to do until the next event."""


Decision = Commit | Ask | Wait | Idle


class Statistics(msgspec.Struct):
    """Counters of one series; they only grow."""

    dropped_frames: int = 0
    """Late, repeated or off the grid: they told nothing new."""
    off_grid_rows: int = 0
    """REST rows whose open time no candle of this series can have (Binance has some from 2018)."""
    gaps: int = 0
    """Times that the stream showed a candle that did not follow the tail."""
    backfilled: int = 0
    """Candles taken from REST behind the first ones."""
    filled: int = 0
    """Outage minutes filled."""
    missed: int = 0
    """Closed candles that were missing after the tail, and were put in: rows, fills, and what the stream had shown."""
    corrections: int = 0
    """Closed candles that a final row changed."""
    begun: int = 0
    """Times that the series began: once, after each gap longer than the history, and when the store had lost it."""


class Sync:
    """The state of one series' sync. Reads ``replica``, never changes it: that happens when a commit is published."""

    def __init__(
        self, replica: Replica, rules: Rules, new_life: Callable[[], str], pending: Pending | None = None
    ) -> None:
        """``pending``: what the stream has shown of the series to an earlier sync, and to this one from now on."""
        self._replica = replica
        self._interval = replica.series.interval
        self._rules = rules
        self._new_life = new_life
        self._pending = Pending(rules.history) if pending is None else pending
        self._connected = False
        self._connection = 0
        self._confirmed = False
        self._mute = False
        """Whether the stream was found dead, and has shown nothing since."""
        self._gap = False
        self._found: Absorbed | None = None
        self._replaces: str | None = None
        """The life that the store has fallen back to (empty: it has none), until a new one stands in its place."""
        self._restart = False
        self._wait: Wait | None = None
        self._waits = 0
        self._failures = 0
        self._suspects: tuple[Gap, ...] = ()
        self._paused = False
        self._patience = rules.outage_patience
        self._unproven: set[int] = set()
        """Open times of what was closed as the stream last showed it, until a final row says the same."""
        self.statistics = Statistics()

    # --- what is known

    @property
    def state(self) -> State:
        """What clients are told."""
        if not self._connected:
            return State.STALE
        return State.LIVE if self.is_whole and not self._mute else State.SYNCING

    @property
    def is_connected(self) -> bool:
        """Whether the series has a feed."""
        return self._connected

    @property
    def has_gap(self) -> bool:
        """Whether something is known to be missing after the tail."""
        return self._gap

    @property
    def is_whole(self) -> bool:
        """Whether the tail was confirmed since the last (re)connect and nothing is known to be missing after it."""
        return len(self._replica) > 0 and self._confirmed and not self._gap

    @property
    def doubtful(self) -> set[int]:
        """Open times of closed candles for which REST had no row: it may come to have one, which corrects them."""
        first = self._replica.first
        self._unproven = {time for time in self._unproven if first is not None and time >= first.open_time}
        return self._replica.filled | self._unproven

    # --- events

    def connected(self) -> None:
        """The series' stream is subscribed on a fresh connection."""
        self._connected = True
        self._connection += 1
        # Invariant 4: the tail was out of sight; until REST, asked from now on, has confirmed it, nothing follows it.
        self._confirmed = False
        self._pending.lose_sight()
        self._wait = None
        self._waits = 0

    def lost(self) -> None:
        """The series has no feed."""
        self._connected = False

    def muted(self) -> None:
        """The stream was found dead: whatever connects, it does not count as live before it has shown something."""
        self._mute = True

    def frame(self, candle: Candle) -> bool:
        """The stream has shown a candle; whether it tells anything new.

        Never more than a few dictionary operations (invariant 8).
        """
        self._mute = False
        tail = self._replica.tail
        is_new = self._lies_on_grid(candle, tail) and self._is_news(candle, tail) and self._pending.add(candle)
        self.statistics.dropped_frames += not is_new
        return is_new

    def follow(self, candle: Candle) -> Commit | None:
        """The commit that a candle shown by the stream makes of a live series for which nothing else is waiting.

        It is the one that `frame` and `decide` would come to, without a detour over what is pending; nothing changes
        before `committed`. `None` when there is more to it, or nothing at all: then the candle is for `frame`.
        """
        replica = self._replica
        tail = replica.tail
        is_at_rest = self.is_whole and self._connected and not self._mute and self._pending.is_empty
        if tail is None or not is_at_rest or self._found or self._suspects or self._replaces is not None:
            return None
        if candle.open_time == tail.open_time:
            if merge(tail, candle, Source.STREAM) is None:
                return None
        elif not tail.closed or candle.open_time != self._interval.next(tail.open_time):
            return None
        # No fill can stand behind the newest candle: see `refill`.
        return Commit(replica.life, replica.revision + 1, (candle,))

    def answered(self, ask: Ask, rows: Sequence[Candle]) -> None:
        """REST has answered ``ask`` with ``rows``: ascending, all but the last final (`closed`), the last forming."""
        self._failures = 0
        is_full = len(rows) >= self._rules.page
        rows = self._on_grid(rows)
        self._note_proven(rows)
        if ask.start is not None and is_full:
            # More is missing than one answer holds. Ask for the newest: they either reach back to the tail, or the gap
            # is longer than the history and the series begins again with them.
            self._restart = True
            return
        if rows:
            # A frame further ahead of REST than a whole history is no candle that a chart could be brought to.
            plausible = self._interval.next(rows[-1].open_time, self._rules.history)
            self._pending.forget(beyond=plausible)
        evidence = Evidence(
            missing=self._suspects if self._paused else (), pending=self._pending, give_up=self._patience <= 0
        )
        found = absorb(self._replica, rows, evidence)
        self._note_missing(found)
        # A series begins whole, or it would be served without its newest candles while the outage rule takes its time.
        self._restart = found.begins and bool(found.missing)
        self._found = found if found.changes and not self._restart else None
        self._unproven.update(found.given_up)
        self._count(self._found)
        is_current = self._connected and ask.connection == self._connection
        if is_current and not found.missing and self._covers_tail(rows, found):
            self._confirmed = True
        if not found.missing:
            self._wait = Wait(self._later_row_wait())

    def inspected(self, rows: Sequence[Candle]) -> bool:
        """REST was asked about a series that is whole (its stream is silent, or it is `doubtful`): take what it shows.

        Corrections and real minutes in place of fills are taken; for what is missing or comes after the tail there
        is `decide`. Returns whether the rows show trades that the stream had not shown.
        """
        rows = self._on_grid(rows)
        self._note_proven(rows)
        unshown = self._shows_news(rows)
        if self.is_whole and self._found is None and rows:
            found = absorb(self._replica, rows, Evidence(missing=(), pending=self._pending, give_up=False))
            if found.changes and not found.begins and not found.missing:
                self._found = found
                self._count(found)
        return unshown

    def failed(self, retry_after: float = 0.0) -> None:
        """REST could not be asked; ``retry_after`` seconds at least must pass, and 0 says nothing."""
        if retry_after:
            # When there will be a turn is known: to come later would only be to lose it.
            self._wait = Wait(max(self._rules.retry_first, retry_after))
            return
        wait = min(self._rules.retry_cap, self._rules.retry_first * 2.0 ** min(self._failures, 16))
        self._failures += 1
        self._wait = Wait(wait)

    def waited(self, wait: Wait) -> None:
        """The time of a `Wait` has passed."""
        if wait is self._wait:
            self._wait = None
            self._paused = self._paused or wait.outage

    def committed(self, commit: Commit) -> None:
        """The commit stands in the store and in the replica."""
        if self._replaces is None:
            self._found = None
        self._replaces = None
        if commit.begins:
            self.statistics.begun += 1

    def conflicted(self) -> None:
        """The store was not as the replica had it; the replica has been read anew since.

        A wait goes on: were each commit refused, REST would be asked without a pause.
        """
        self._found = self._replaces = None
        self._confirmed = False

    def store_fell_back(self, life: str) -> None:
        """The store holds less than was served from the replica: something older, of ``life``, or nothing (empty).

        It is made whole with what the replica holds, in a new life. What is known of the series stays true meanwhile.
        """
        self._replaces = life

    # --- decisions

    def decide(self) -> Decision:
        """What to do now. Call it again after each event and after what it decided has been done."""
        if self._replaces is not None:
            return self._begin_life(self._replaces)
        tail = self._replica.tail
        found = self._found or Absorbed({}, tail)
        if found.tail is not None and self._confirmed:
            self._take_pending(found, found.tail)
        if found.changes:
            return self._commit(found)
        if tail is not None and self._confirmed and not self._gap:
            self._settle(tail)
            return Idle()
        if tail is not None and not self._connected:
            return Idle()  # nothing that REST says now would confirm the tail for a connection still to come
        return self._wait or self._ask()

    # --- the parts

    def _lies_on_grid(self, candle: Candle, tail: Candle | None) -> bool:
        time = candle.open_time
        if tail is None:
            return self._interval.is_open_time(time)
        if time == tail.open_time:
            return True
        return self._interval.is_open_time(time) and self._interval.steps(tail.open_time, time) is not None

    def _is_news(self, candle: Candle, tail: Candle | None) -> bool:
        if tail is None or candle.open_time > tail.open_time:
            return True
        known = tail if candle.open_time == tail.open_time else self._replica.get(candle.open_time)
        return known is not None and merge(known, candle, Source.STREAM) is not None

    def _on_grid(self, rows: Sequence[Candle]) -> Sequence[Candle]:
        """The rows whose open times lie on the grid of the series, or of the newest row before the first candle."""
        fit = [row for row in rows if self._interval.is_open_time(row.open_time)]
        if fit:
            anchor = (self._replica.tail or fit[-1]).open_time
            fit = [row for row in fit if self._interval.steps(anchor, row.open_time) is not None]
        self.statistics.off_grid_rows += len(rows) - len(fit)
        return fit

    def _shows_news(self, rows: Sequence[Candle]) -> bool:
        """Whether a row has trades that neither the stream nor the series had."""
        known = [candle for candle in (self._replica.tail, *self._pending) if candle is not None]
        if not known or not rows:
            return False
        newest = max(known, key=lambda candle: (candle.open_time, candle.trades))
        return any(
            row.trades > (newest.trades if row.open_time == newest.open_time else 0)
            for row in rows
            if row.open_time >= newest.open_time
        )

    def _note_proven(self, rows: Sequence[Candle]) -> None:
        # What differs stays in doubt: it is corrected, and that commit may still fail.
        for row in rows if self._unproven else ():
            known = self._replica.get(row.open_time)
            if row.closed and known is not None and same_values(known, row):
                self._unproven.discard(row.open_time)

    def _note_missing(self, found: Absorbed) -> None:
        """Missing minutes are suspects until REST, asked again after the pause, still does not show them."""
        if not found.missing:
            self._suspects, self._paused, self._patience = (), False, self._rules.outage_patience
            return
        if self._paused:
            self._patience -= 1
        self._suspects, self._paused = found.missing, False
        self._wait = Wait(self._rules.outage_pause, outage=True)

    def _covers_tail(self, rows: Sequence[Candle], found: Absorbed) -> bool:
        """Whether an answer has shown the tail: as final, or as the newest and with all the trades that it is known by.

        With fewer, REST is behind, and may be behind by more than this candle.
        """
        tail = self._replica.tail
        if tail is None or found.begins:
            return found.begins
        if not rows or rows[-1].open_time < tail.open_time:
            return False
        return rows[-1].open_time > tail.open_time or rows[-1].trades >= tail.trades

    def _later_row_wait(self) -> float:
        wait = min(self._rules.later_row_cap, self._rules.later_row_first * 2.0 ** min(self._waits, 16))
        self._waits += 1
        return wait

    def _ask(self) -> Ask:
        tail = self._replica.tail
        start = None if tail is None or self._restart else tail.open_time
        return Ask(start, self._connection)

    def _settle(self, tail: Candle) -> None:
        """Whole: what was kept for asking is done with."""
        self._wait = None
        self._waits = 0
        self._suspects, self._paused, self._patience = (), False, self._rules.outage_patience
        self._pending.forget(before=tail.open_time)

    def _take_pending(self, found: Absorbed, tail: Candle) -> None:
        """Put the waiting frames that follow onto the tail; what does not follow stays, and is a gap."""
        gap = False
        for candle in self._pending:
            time = candle.open_time
            if time <= tail.open_time:
                known = found.changes.get(time) or (None if found.begins else self._replica.get(time))
                state = None if known is None else merge(known, candle, Source.STREAM)
                if state is None:
                    # It stands in the series already, or tells nothing new. What only stands in the changes is kept:
                    # their commit may still fail.
                    if time not in found.changes:
                        self._pending.drop(candle)
                    continue
            elif tail.closed and self._interval.next(tail.open_time) == time:
                state = candle
            else:
                gap = True
                break
            found.changes[time] = state
            if time >= tail.open_time:
                tail = found.tail = state
        # REST's word counts as the stream's does: what it has shown later rows of, and not itself, is missing. Where
        # that is the tail, its later rows are.
        gap = gap or any(missing.last >= tail.open_time for missing in self._suspects)
        self.statistics.gaps += gap and not self._gap
        self._gap = gap

    def _commit(self, found: Absorbed) -> Commit:
        refill(self._replica, found.changes, begins=found.begins)
        candles = tuple(found.changes[time] for time in sorted(found.changes))
        life = self._replica.life or self._new_life()
        return Commit(life, self._replica.revision + 1, candles, found.begins)

    def _begin_life(self, replaces: str) -> Commit:
        candles = tuple(entry.candle for entry in self._replica.newest(self._rules.history))
        return Commit(self._new_life(), 1, candles, begins=True, replaces=replaces)

    def _count(self, found: Absorbed | None) -> None:
        if found is not None:
            self.statistics.backfilled += 0 if found.begins else found.appended
            self.statistics.filled += found.filled
            self.statistics.corrections += found.corrected
            self.statistics.missed += self._missed(found)

    def _missed(self, found: Absorbed) -> int:
        """How many closed candles were missing that an answer puts in."""
        before = self._replica.tail
        if before is None or found.tail is None:
            return 0
        # Where the series begins anew, what lay between them is not put in, and was missing all the same.
        lost = self._interval.steps(before.open_time, found.tail.open_time) or 0
        return max(0, lost - (not found.tail.closed))
