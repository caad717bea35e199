"""The follower of one series: keeps this node's replica where the store is, while another node owns the symbol.

It carries out what ``core.following`` decides. What is announced is shown at once, by the listener's task: nothing of
that waits, so that nothing can come in between. The follower's own task asks the store when that is due, one question
at a time. A symbol is never owned and followed at once, and so nobody else shows anything of its series meanwhile.
"""

from __future__ import annotations

import math

import structlog
import trio

from candlesync.core.following import Due, Following
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.core.report import SeriesReport
from candlesync.core.sync import State
from candlesync.errors import StoreUnavailable
from candlesync.hub import Topic
from candlesync.store.base import ASK_AGAIN_CAP, ASK_AGAIN_FIRST, Store

_log = structlog.get_logger(__name__)

_PATIENCE = 5.0
"""Seconds that the store is given to answer."""


class Follower:
    """Follows one series. What it hears comes from ``announcements.Announcements``, and none of that waits."""

    def __init__(self, topic: Topic, store: Store, *, fresh_for: float) -> None:
        """A report counts for ``fresh_for`` seconds."""
        self.topic = topic
        self.series = topic.series
        self._store = store
        self._following = Following(topic, fresh_for)
        self._event = trio.Event()
        self._sleeps_until = math.inf
        self._deaf = "what is announced is not heard yet"
        """Why nothing is heard; empty while all is."""
        self._failure = ""
        """Why the store did not answer; empty when it did, or was not asked."""
        self.reads = 0
        """How often the whole series was read."""

    # --- what is announced

    def listening(self) -> None:
        """See `Audience.listening`."""
        self._following.listening()
        self._deaf = ""
        self._note()

    def deaf(self, reason: str) -> None:
        """See `Audience.deaf`."""
        self._following.deaf()
        self._deaf = reason
        self._note()

    def committed(self, commit: Commit) -> None:
        """See `Audience.committed`."""
        self._following.committed(commit)
        self._note()

    def moved(self, position: Position) -> None:
        """See `Audience.moved`."""
        self._following.moved(position)
        self._note()

    def reported(self, report: SeriesReport | None, at: float) -> None:
        """The owner said at ``at`` (trio time) how the series is; `None`: it has not begun it. No owner: -inf."""
        self._following.reported(report, at)
        self._note()

    # --- the task

    async def run(self) -> None:
        """Ask the store what is due, until cancelled. The series is stale from then on: nobody keeps it."""
        pause = ASK_AGAIN_FIRST
        try:
            while True:
                if self._following.due is Due.NOTHING:
                    await self._sleep()
                elif await self._ask():
                    pause = ASK_AGAIN_FIRST
                else:
                    await trio.sleep(pause)
                    pause = min(ASK_AGAIN_CAP, pause * 2)
        finally:
            self.topic.failure = ""
            self.topic.set_state(State.STALE)

    async def _ask(self) -> bool:
        """Ask the store what is due; whether it answered."""
        due = self._following.due
        self._following.asked()
        try:
            with trio.fail_after(_PATIENCE):
                if due is not Due.POSITION or not self._following.found(await self._store.position(self.series)):
                    stored = await self._store.read(self.series)
                    self._following.read(stored, trio.current_time())
                    self.reads += 1
        except (StoreUnavailable, trio.TooSlowError) as error:
            self._following.unanswered()
            failure = str(error) or f"the store did not answer within {_PATIENCE:g} s"
            if not self._failure:
                # Of hundreds of series each says so; the node's listener and its ownership say it aloud.
                _log.debug("the store does not answer", series=str(self.series), reason=failure)
            self._failure = failure
        else:
            if self._failure:
                _log.debug("the store answers again", series=str(self.series))
            self._failure = ""
        self._note()
        return not self._failure

    async def _sleep(self) -> None:
        """Until there is something to ask, or the time to look at a store that is behind; the state is kept true."""
        while self._following.due is Due.NOTHING:
            now, look_at, fresh_until = trio.current_time(), self._following.look_at, self._following.fresh_until
            if look_at is not None and look_at <= now:
                self._following.look_again()
                break
            times = [time for time in (look_at, fresh_until) if time is not None and time > now]
            self._sleeps_until = min(times, default=math.inf)
            with trio.move_on_at(self._sleeps_until):
                await self._event.wait()
            self._note()

    def _note(self) -> None:
        """Something was heard or has become of a question, or a report has become old."""
        is_missing = not self.topic.is_begun and self._following.due is Due.NOTHING
        self.topic.failure = self._failure or self._deaf or ("its owner has not begun it yet" if is_missing else "")
        self.topic.set_state(self._following.state(trio.current_time()))
        # A report wakes the task only where it would sleep past its end: of 500 series there are 1000 in a second.
        if (
            self._following.due is not Due.NOTHING
            or trio.current_time() < self._following.fresh_until < self._sleeps_until
        ):
            self._event.set()
            self._event = trio.Event()
