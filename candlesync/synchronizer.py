"""The synchronizer of one series: carries out what ``core.sync`` decides.

The critical section is the series' lock held over read, decide, backfill, commit and publish. Three rules keep the
invariants there, whatever is cancelled and wherever:

- **Commit and publish are one act** (invariant 2). `_commit` is the only place that does either. It is shielded, for
  at most ``commit_timeout`` seconds, and there is no await between the store's answer and `Topic.publish`: cancellation
  falls before both or after both.
- **An unknown outcome is settled by reading.** A commit that timed out or failed may stand in the store; what the store
  holds is read and published before anything else is decided. A store that cannot be asked is asked until it answers:
  the feed stays, its frames wait, the replica is served as it is, and nobody is told that it is live.
- **A decision never outlives what it was based on.** The commit names the revision that was read; if the store has
  another one, it refuses, and the series is read again.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import structlog
import trio

from candlesync.core.candle import Candle, Series
from candlesync.core.replica import Commit
from candlesync.core.sync import Ask, Idle, Rules, State, Sync, Wait
from candlesync.errors import RevisionConflict, StoreUnavailable, UpstreamUnavailable
from candlesync.hub import Topic
from candlesync.store.base import Store

_log = structlog.get_logger(__name__)

_READ_AGAIN_FIRST = 0.25
"""Seconds until a store that could not be asked is asked again; doubles each time, to the cap."""
_READ_AGAIN_CAP = 4.0
"""Seconds. A store that is back is noticed within so long, and asked by 500 series 125 times a second at most."""


class Klines(Protocol):
    """What a synchronizer asks of Binance's REST (``binance.rest.Rest``)."""

    async def klines(
        self, series: Series, *, start_time: int | None = None, patience: float = ...
    ) -> tuple[Candle, ...]:
        """The oldest rows from ``start_time`` (milliseconds) on."""
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
    ) -> None:
        """Times in seconds: ``commit_timeout`` bounds a commit, ``patience`` a question to REST and its retries."""
        self.topic = topic
        self.series = topic.series
        self._store = store
        self._klines = klines
        self._rules = rules
        self._token = token
        self._commit_timeout = commit_timeout
        self._patience = patience
        self.sync = Sync(topic.replica, rules, _new_life)
        self.frame_time = trio.current_time()
        """When the stream last showed something (trio time)."""
        self._event = trio.Event()
        self._wait: Wait | None = None
        self._wait_over = 0.0
        self._store_answers = True

    # --- events: called from the loop that receives frames, so none of them waits (invariant 8)

    def connected(self) -> None:
        """The series' stream is subscribed on a fresh connection."""
        self.sync.connected()
        self.frame_time = trio.current_time()
        self._tell_state()
        self._event.set()

    def lost(self) -> None:
        """The series has no feed."""
        self.sync.lost()
        self._tell_state()
        self._event.set()

    def frame(self, candle: Candle) -> None:
        """The stream has shown a candle."""
        self.frame_time = trio.current_time()
        self.sync.frame(candle)
        self._event.set()

    # --- the task

    async def run(self) -> None:
        """Keep the series continuous until cancelled.

        Raises `Fenced` when another owner has taken the symbol, `UnknownSymbol` when Binance does not know it, and
        `trio.TooSlowError` when the store does not even let itself be read.
        """
        try:
            await self._read()
            while True:
                wait = await self._step()
                if wait is not None:
                    await self._sleep(wait)
        finally:
            self.sync.lost()
            self._tell_state()

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

    async def _step(self) -> Wait | Idle | None:
        """One turn of the critical section; what to wait for before the next, if for anything."""
        async with self.topic.lock:
            decision = self.sync.decide()
            if not isinstance(decision, Commit):
                self._tell_state()  # a commit comes first: what it brings is not there before
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
        try:
            if ask.start is None:
                rows = await self._klines.newest(self.series, self._rules.history, patience=self._patience)
            else:
                rows = await self._klines.klines(self.series, start_time=ask.start, patience=self._patience)
        except UpstreamUnavailable as error:
            if not self.topic.failure:
                _log.warning("backfill failed", series=str(self.series), reason=str(error))
            self.topic.failure = str(error)
            self.sync.failed(error.retry_after)
            return
        self.topic.failure = "" if rows else "Binance shows no candles of it yet"
        self.sync.answered(ask, rows)

    async def _commit(self, commit: Commit) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            # Invariant 2. The shield is bounded, and the store's own work is all that it covers.
            with trio.CancelScope(shield=True), trio.fail_after(self._commit_timeout):
                await self._store.commit(self.series, commit, token=self._token)
                # No await from here to the end of `publish`.
                self.topic.publish(commit)
        except RevisionConflict as error:
            _log.warning("somebody else has written", series=str(self.series), reason=str(error))
            await self._read()
            return
        except trio.TooSlowError:
            _log.warning("commit timed out", series=str(self.series), seconds=self._commit_timeout)
            await self._read()
            return
        except StoreUnavailable as error:
            self._note_failure(error)
            await self._read()
            return
        self.sync.committed(commit)
        self._tell_state()

    async def _read(self) -> None:
        """Bring the replica to what the store holds, publishing what it did not have.

        Waits for a store that cannot be asked. Raises `trio.TooSlowError` for one that does not even say so in time.
        """
        pause = _READ_AGAIN_FIRST
        while True:
            try:
                with trio.fail_after(self._commit_timeout):
                    snapshot = await self._store.read(self.series)
            except StoreUnavailable as error:
                self._note_failure(error)
            else:
                break
            await trio.sleep(pause)
            pause = min(_READ_AGAIN_CAP, pause * 2)
        if not self._store_answers:
            _log.info("the store answers again", series=str(self.series))
            self._store_answers = True
            self.topic.failure = ""
        if snapshot is not None:
            self.topic.adopt(snapshot)
        self.sync.conflicted()

    def _note_failure(self, error: StoreUnavailable) -> None:
        """Nothing is known of the store: what comes cannot be shown until it answers, and that is said."""
        if self._store_answers:
            _log.warning("the store does not answer", series=str(self.series), reason=str(error))
        self._store_answers = False
        self.topic.failure = str(error)
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


def _new_life() -> str:
    return secrets.token_hex(5)
