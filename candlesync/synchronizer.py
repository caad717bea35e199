"""The synchronizer of one series: carries out what ``core.sync`` decides.

The critical section is the series' lock held over read, decide, backfill, commit and publish. These rules keep the
invariants there, whatever is cancelled and wherever:

- **Commit and publish are one act** (invariant 2). Only `_commit` and `_commit_now` do either. The first is shielded,
  for at most ``commit_timeout`` seconds, and there is no await between the store's answer and `Topic.publish`; the
  second has no await at all: cancellation falls before both or after both.
- **An unknown outcome is settled by asking the store.** A commit that timed out or failed may stand in it; where the
  store is, and what it holds if that is elsewhere, is read and published before anything else is decided. A store that
  cannot be asked is asked until it answers: the feed stays, its frames wait, the replica is served as it is, and nobody
  is told that it is live.
- **A decision never outlives what it was based on.** The commit names the revision that was read; if the store has
  another one, it refuses, and the series is read again.
- **A live frame waits for nobody.** While the series is live and a store inside of this process can take it at once, a
  frame is committed and published by whoever hands it over, in the same moment: no await, no other task. The lock is
  free then, so it is a critical section like any other.
- **Nothing that was served is taken back.** A store that holds less than the replica (it was wiped, or an old copy of
  it promoted) is not taken over but made whole, in a new life.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeGuard, TypeVar

import structlog
import trio

from candlesync.core.audit import Finding, Question, compare
from candlesync.core.candle import Candle, Series
from candlesync.core.healing import SeriesHealing
from candlesync.core.position import Position
from candlesync.core.record import NOBODY, Record
from candlesync.core.replica import Commit, Snapshot
from candlesync.core.sync import Ask, Idle, Rules, State, Sync, Wait
from candlesync.errors import Fenced, RevisionConflict, StoreUnavailable, UpstreamUnavailable
from candlesync.hub import Topic
from candlesync.store.base import ASK_AGAIN_CAP, ASK_AGAIN_FIRST, PromptStore, Store

_log = structlog.get_logger(__name__)

_COURTESY = 2.0
"""Seconds by which a series that nobody looks at lets the others go first: more than the second over which those who
wait for one moment are spread (``binance.weight``), or some of them would still come behind it."""

Answer = TypeVar("Answer")


class Klines(Protocol):
    """What a synchronizer asks of Binance's REST (``binance.rest.Rest``)."""

    async def klines(
        self, series: Series, *, start_time: int | None = None, limit: int = ..., patience: float = ...
    ) -> tuple[Candle, ...]:
        """The oldest rows from ``start_time`` (milliseconds) on, at most ``limit``."""
        ...

    async def newest(self, series: Series, count: int, *, patience: float = ...) -> tuple[Candle, ...]:
        """The newest ``count`` rows."""
        ...


class Synchronizer:
    """Keeps one series continuous, from the frames that it is handed and from REST."""

    def __init__(
        self,
        topic: Topic,
        store: Store,
        klines: Klines,
        rules: Rules,
        *,
        token: int,
        commit_timeout: float = 5.0,
        patience: float = 10.0,
        record: Record | None = None,
    ) -> None:
        """Times in seconds: ``commit_timeout`` bounds a commit, ``patience`` a question to REST and its retries.

        ``record`` keeps what is counted here and how long it took.
        """
        self.topic = topic
        self.series = topic.series
        self._store = store
        self._prompt = store if isinstance(store, PromptStore) else None
        self._klines = klines
        self._rules = rules
        self._token = token
        self._commit_timeout = commit_timeout
        self._patience = patience
        self.sync = Sync(topic.replica, rules, _new_life, topic.pending)
        self.frame_time = trio.current_time()
        """When the stream last showed something (trio time)."""
        self._event = trio.Event()
        self._wait: Wait | None = None
        self._wait_over = 0.0
        self._store_answers = True
        self._refusals = 0
        """How often in a row the store did not do what it was asked to."""
        self._ask_again_at = -math.inf
        """When it may be asked for something again (trio time)."""
        self._doubts = True
        """Whether the store may be elsewhere than the replica, without a commit of ours having shown it."""
        self._record = Record() if record is None else record
        self._healing = SeriesHealing(self._record.healing)
        self._waiting = NOBODY
        """Since when frames wait for a commit that is to be made."""
        self._under_way = NOBODY
        """The same of those whose commit is being made, or was not enough to make the series whole."""

    # --- events: called from the loop that receives frames, so none of them waits (invariant 8)

    def connected(self) -> None:
        """The series' stream is subscribed on a fresh connection."""
        self.sync.connected()
        self.frame_time = trio.current_time()
        self._healing.sight(self.frame_time, self.sync.statistics.missed)
        self._tell_state()
        self._event.set()

    def lost(self) -> None:
        """The series has no feed."""
        # The task need not know: what it waits for, it waits for without a feed, too.
        self.sync.lost()
        self._healing.lose_sight()
        self._tell_state()

    def frame(self, candle: Candle) -> None:
        """The stream has shown a candle."""
        self.frame_time = trio.current_time()
        if self._prompt is None or not self._commit_now(candle, self._prompt):
            if self.sync.frame(candle):
                self._waiting = self._waiting.and_frame(self.frame_time, closes=candle.closed)
            self._event.set()

    def doubt(self) -> None:
        """The store may be another than before, and hold less: look, rather than wait until something is committed."""
        self._doubts = True
        self._event.set()

    # --- the task

    async def run(self) -> None:
        """Keep the series continuous until cancelled.

        Raises `Fenced` when another owner has taken the symbol, and `UnknownSymbol` when Binance does not know it.
        """
        try:
            self._record.begin(self.series, self.sync.statistics)
            while True:
                wait = await self._step()
                if wait is not None:
                    await self._sleep(wait)
        finally:
            self.topic.failing_until = -math.inf
            self.sync.lost()
            self._tell_state()
            self._healing.abandon()
            self._record.end(self.series, self.sync.statistics)

    async def inspect(self, start: int) -> bool:
        """Ask REST about the series from ``start`` (milliseconds) on and take what it corrects.

        Returns whether it shows trades that the stream has not shown. Live candles go on meanwhile: the lock is not
        held while REST is asked. Raises `UpstreamUnavailable`.
        """
        rows = await self._klines.klines(self.series, start_time=start, patience=self._patience)
        async with self.topic.lock:
            unshown = self.sync.inspected(rows)
        self._event.set()
        return unshown

    async def audit(self, question: Question) -> tuple[Finding, int] | None:
        """Compare a part of the series with REST; what was found, and how many candles are corrected for it.

        `None` when the series is not live (any more): nothing is compared then. Live candles go on meanwhile, as in
        `inspect`. Raises `UpstreamUnavailable`, and `UnknownSymbol` when Binance does not know it any more.
        """
        rows = await self._klines.klines(
            self.series, start_time=question.start, limit=question.limit, patience=self._patience
        )
        with trio.move_on_after(self._commit_timeout):
            async with self.topic.lock:
                if self.topic.state is not State.LIVE:
                    return None
                finding = compare(self.topic.replica, question, rows)
                corrections = self.sync.statistics.corrections
                if finding.differing:
                    self.sync.inspected(rows)
                    self._event.set()
                return finding, self.sync.statistics.corrections - corrections
        return None

    async def _step(self) -> Wait | Idle | None:
        """One turn of the critical section; what to wait for before the next, if for anything."""
        async with self.topic.lock:
            if self._doubts:
                await self._look()
            decision = self.sync.decide()
            if not isinstance(decision, Commit):
                # A commit comes first: what it brings is not there before. When there is none to be made, it was
                # settled what became of the last.
                self._note_answer()
                self._tell_state()
            self._note_gap(is_settled=not isinstance(decision, Commit))
            match decision:
                case Commit():
                    await self._commit(decision)
                case Ask():
                    await self._ask(decision)
                case Wait() | Idle():
                    return decision
            return None

    async def _ask(self, ask: Ask) -> None:
        # Its deadline: the patience that REST is given, after which it has answered or failed.
        asked_at = trio.current_time()
        try:
            if ask.start is None:
                rows = await self._klines.newest(self.series, self._rules.history, patience=self._patience)
            else:
                rows = await self._klines.klines(self.series, start_time=ask.start, patience=self._patience)
        except UpstreamUnavailable as error:
            if not self.topic.failure:
                _log.warning("backfill failed", series=str(self.series), reason=str(error))
            self.topic.failure = str(error)
            self.topic.failing_until = trio.current_time() + error.retry_after
            # All who wait for a ban's end wait for the same moment: those come first whom somebody is looking at.
            courtesy = 0.0 if self.topic.is_looked_at or not error.retry_after else _COURTESY
            self.sync.failed(error.retry_after + courtesy)
            return
        self._record.backfills.observe(trio.current_time() - asked_at)
        self.topic.failure = "" if rows else "Binance shows no candles of it yet"
        self.sync.answered(ask, rows)

    async def _commit(self, commit: Commit) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        # What comes from now on waits for the next one.
        self._under_way, self._waiting = self._under_way.and_all(self._waiting), NOBODY
        try:
            # Invariant 2. The shield is bounded, and the store's own work is all that it covers.
            with trio.CancelScope(shield=True), trio.fail_after(self._commit_timeout):
                await self._store.commit(self.series, commit, token=self._token)
                # No await from here to the end of `publish`.
                self.topic.publish(commit)
        except RevisionConflict as error:
            _log.warning("somebody else has written", series=str(self.series), reason=str(error))
            self._note_refusal()
            await self._read()
        except trio.TooSlowError:
            _log.warning("commit timed out", series=str(self.series), seconds=self._commit_timeout)
            await self._settle(commit)
        except StoreUnavailable as error:
            self._note_failure(error)
            await self._settle(commit)
        else:
            self._committed(commit)

    def _commit_now(self, candle: Candle, store: PromptStore) -> bool:
        """Commit and publish what the stream has shown, if that is all there is to do; whether it was done."""
        if self._doubts or self.topic.state is not State.LIVE or self.topic.lock.locked():
            return False
        commit = self.sync.follow(candle)
        if commit is None:
            return False
        try:
            store.commit_now(self.series, commit, token=self._token)
        except (Fenced, RevisionConflict):
            return False  # nothing has changed: the task is refused in the same way, and knows what to do then
        self.topic.publish(commit)
        self.sync.committed(commit)
        delay = trio.current_time() - self.frame_time
        self._record.frame_delays.observe(delay)
        if candle.closed:
            self._record.close_delays.observe(delay)
        return True

    def _committed(self, commit: Commit) -> None:
        """The commit stands in the store and is published."""
        self.sync.committed(commit)
        if not commit.begins:
            # One that begins a life may only have brought the store to where the replica was: what was found since then
            # comes next, and whether the series is live is told when there is no more of it.
            self._note_answer()
            self._tell_state()
        # While something is missing, what the stream shows after it still waits.
        if self.sync.is_whole:
            self._record.shown(self._under_way, trio.current_time())
            self._under_way = NOBODY

    def _note_gap(self, *, is_settled: bool) -> None:
        """Keep the record of gaps; ``is_settled``: what is known stands in the store."""
        sync, now = self.sync, trio.current_time()
        if sync.has_gap:
            self._healing.sight(now, sync.statistics.missed)
            self._healing.find()
        elif is_settled and sync.is_whole:
            if sync.is_connected:
                self._healing.heal(now, sync.statistics.missed)
            # What waited told nothing that REST had not told before.
            self._waiting = self._under_way = NOBODY

    async def _look(self) -> None:
        """See whether the store is where the replica is; read it, if not."""
        self._doubts = False
        if not self.topic.is_begun or await self._ask_store(self._store.position) != self.topic.replica.position:
            await self._read()

    async def _settle(self, commit: Commit) -> None:
        """Find out what became of a commit. If it did not happen, nothing has changed: it is decided anew."""
        position = await self._ask_store(self._store.position)
        if (position or Position("", 0)) == self.topic.replica.position:
            return
        if position == commit.position:
            snapshot = await self._ask_store(self._store.read)
            if _holds(snapshot, commit):
                # As if its answer had come. No await between the two, as in `_commit`.
                self.topic.adopt(snapshot)
                self._committed(commit)
                return
        await self._read()

    async def _read(self) -> None:
        """Bring the replica to what the store holds, publishing what it did not have; or see that the store is behind.

        Waits for a store that cannot be asked.
        """
        snapshot = await self._ask_store(self._store.read)
        if self.topic.replica.is_ahead_of(snapshot):
            life = "" if snapshot is None else snapshot.life
            _log.warning("the store has fallen back: a new life", series=str(self.series), replaces=life)
            self.sync.store_fell_back(life)
            return
        if snapshot is not None:
            self.topic.adopt(snapshot)
        self.sync.conflicted()

    async def _ask_store(self, question: Callable[[Series], Awaitable[Answer]]) -> Answer:
        while True:
            await trio.sleep_until(self._ask_again_at)
            try:
                with trio.fail_after(self._commit_timeout):
                    return await question(self.series)
            except StoreUnavailable as error:
                self._note_failure(error)
            except trio.TooSlowError:
                # A store says itself that it cannot be asked, and sooner. This is a process that was stopped for a
                # while: by the time that it goes on, the answer is there, and its deadline has passed.
                self._note_failure(StoreUnavailable(f"the store did not answer within {self._commit_timeout:g} s"))

    def _note_refusal(self) -> None:
        # The second question in a row is put at once.
        pause = ASK_AGAIN_FIRST * 2.0 ** min(self._refusals - 1, 16) if self._refusals else 0.0
        self._ask_again_at = trio.current_time() + min(ASK_AGAIN_CAP, pause)
        self._refusals += 1

    def _note_answer(self) -> None:
        """What the store holds is known, and nothing that was to be put there is not."""
        self._refusals = 0
        if not self._store_answers:
            _log.info("the store answers again", series=str(self.series))
            self._store_answers = True
            self.topic.failure = ""

    def _note_failure(self, error: StoreUnavailable) -> None:
        """Nothing is known of the store: what comes cannot be shown until it answers, and that is said."""
        if self._store_answers:
            _log.warning("the store does not answer", series=str(self.series), reason=str(error))
        self._note_refusal()
        self._store_answers = False
        self.topic.failure, self.topic.failing_until = str(error), -math.inf
        self._tell_state()

    async def _sleep(self, wait: Wait | Idle) -> None:
        """Until the next event, or until the wait is over. A wait that an event cut short goes on where it was."""
        if isinstance(wait, Idle):
            await self._event.wait()
        else:
            if wait is not self._wait:
                self._wait, self._wait_over = wait, trio.current_time() + wait.seconds
            with trio.move_on_at(self._wait_over):
                await self._event.wait()
            if trio.current_time() >= self._wait_over:
                self.sync.waited(wait)
        self._event = trio.Event()

    def _tell_state(self) -> None:
        state = self.sync.state
        if state is State.LIVE and not self._store_answers:
            state = State.SYNCING
        self.topic.set_state(state)


def _holds(snapshot: Snapshot | None, commit: Commit) -> TypeGuard[Snapshot]:
    """Whether the last that happened to a series was this commit."""
    if snapshot is None or snapshot.position != commit.position:
        return False
    changed = {candle.open_time: candle for candle, revision in snapshot.candles if revision == commit.revision}
    # What is not there has left the history with the commit itself.
    oldest = snapshot.candles[0][0].open_time
    return changed == {candle.open_time: candle for candle in commit.candles if candle.open_time >= oldest}


def _new_life() -> str:
    return secrets.token_hex(5)
