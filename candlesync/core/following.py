"""How a node follows a series that another node owns: what is announced in, what to show out, and never an await.

A replica that stands where the store does is kept there by announcements alone. Whenever it may not stand there, the
store is asked, first for its position, which costs next to nothing, or at once for the whole series:

    announced                                           done
    the next commit of the life, or the first of        shown
    one in place of it, and not behind it
    a commit or position that was shown already         ignored
    a later one, so that others were missed             read
    a commit of another life                            position asked for, and read if it is another
    everything is heard (again)                         position asked for, and read if it is another
    the owner is further than we are                    read
    the owner is at another life, or was behind us      position asked for, and read if it is another
    since its last report

What was announced before the store is asked, its answer holds already. What is announced while it is asked waits, and
is gone through after the answer, so that nothing is lost.

A store that holds less than was served from here (it was wiped, or an old copy of it promoted) is not followed back in
time: its owner is to begin a new life with what it has. Until that has come as far as this replica, or for a patience
at most, the replica *holds on* to what it has.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Protocol

from candlesync.core.candle import Candle
from candlesync.core.position import Position
from candlesync.core.replica import Commit, Replica, Snapshot, progress
from candlesync.core.report import SeriesReport
from candlesync.core.sync import State
from candlesync.errors import NotContinuous

WAITING_AT_MOST = 256
"""Announcements that wait for one answer of the store. That takes seconds, and a series has a few commits in each;
where there are more, the store is asked again instead."""

HOLD_ON = 30.0
"""Seconds that a replica waits for a store that is behind it. Its owner finds that out with its next commit; one that
itself holds nothing newer takes a minute or so, and a chart that loads again is better off than one that stands."""
LOOK_AGAIN = 4.0
"""Seconds after which a store that is behind is read again without having been heard of."""


class Due(Enum):
    """What is to be asked of the store."""

    NOTHING = 0
    POSITION = 1
    """Where the series is; and the series if that is elsewhere."""
    SERIES = 2


class Shown(Protocol):
    """Where it is shown (``hub.Topic``)."""

    replica: Replica

    def publish(self, commit: Commit) -> object:
        """Show a commit."""
        ...

    def adopt(self, snapshot: Snapshot) -> None:
        """Become what the store holds."""
        ...


class Following:
    """The state of one followed series. Times are seconds on whatever clock its caller has, and it has only one."""

    def __init__(self, shown: Shown, fresh_for: float) -> None:
        """A report counts for ``fresh_for`` seconds."""
        self._shown = shown
        self._replica = shown.replica
        self._fresh_for = fresh_for
        self._deaf = True
        self._due = Due.POSITION
        """What is due, apart from a question that is under way: that may be from before it was."""
        self._asking = Due.NOTHING
        """The question that is under way."""
        self._waiting: list[Commit | Position] = []
        self._held_since: float | None = None
        self._look_at: float | None = None
        self._report: SeriesReport | None = None
        self._reported_at = -math.inf
        self._at_report = self._replica.position
        """Where the replica was when the last report came."""

    # --- what is known

    @property
    def due(self) -> Due:
        """What to ask next: `Due.NOTHING` while a question is under way."""
        return Due.NOTHING if self._asking is not Due.NOTHING else self._due

    def state(self, now: float) -> State:
        """What clients are told."""
        if now >= self.fresh_until:
            return State.STALE
        report = self._report
        if report is None:
            return State.SYNCING
        position, ours = report.position, self._replica.position
        is_behind = position.life != ours.life or position.revision > ours.revision
        if self._deaf or is_behind or not self._is_settled or self._held_since is not None:
            return State.SYNCING
        return report.state

    @property
    def fresh_until(self) -> float:
        """Until when the last report counts; the state changes by itself then."""
        return self._reported_at + self._fresh_for

    @property
    def look_at(self) -> float | None:
        """When to call `look_again`, if ever: since when the store was seen to be behind, it is looked at again."""
        return self._look_at

    # --- events

    def listening(self) -> None:
        """From now on everything is heard; what was announced before may have been missed."""
        self._deaf = False
        self._need(Due.POSITION)

    def deaf(self) -> None:
        """Nothing may be heard until `listening`."""
        self._deaf = True

    def committed(self, commit: Commit) -> None:
        """A commit stands in the store. It may be shown before this returns."""
        self._hear(commit)

    def moved(self, position: Position) -> None:
        """A commit stands in the store, of which only the position is told."""
        self._hear(position)

    def reported(self, report: SeriesReport | None, at: float) -> None:
        """The owner said at ``at`` how the series is; `None`: it has not begun it. With no owner ``at`` is -inf."""
        self._report, self._reported_at = report, at
        before, self._at_report = self._at_report, self._replica.position
        if report is None or self._held_since is not None or not self._is_settled:
            return
        position, ours = report.position, self._replica.position
        if position.life == ours.life and position.revision > ours.revision:
            self._need(Due.SERIES)  # what led there was announced before the report was, and not heard
        elif position.life != ours.life or (before.life == ours.life and position.revision < before.revision):
            self._need(Due.POSITION)

    def look_again(self) -> None:
        """It is time to see what became of a store that was behind."""
        self._look_at = None
        self._need(Due.SERIES)

    # --- asking

    def asked(self) -> None:
        """What is due is being asked for; `found`, `read` or `unanswered` follows."""
        self._asking, self._due = self._due, Due.NOTHING
        self._waiting.clear()

    def unanswered(self) -> None:
        """The store did not answer."""
        due, self._asking = self._asking, Due.NOTHING
        self._need(due)

    def found(self, position: Position | None) -> bool:
        """The store told the position. Returns whether that settles it; if not, the series is to be read right now."""
        if (position or Position("", 0)) != self._replica.position or self._held_since is not None:
            # One that was behind may have come to where we are in another way: what it holds tells.
            return False
        self._settle()
        return True

    def read(self, stored: Snapshot | None, now: float) -> None:
        """The store told the series. It may be shown, and what was announced meanwhile, before this returns."""
        if self._is_acceptable(stored, now):
            self._held_since = self._look_at = None
            if stored is not None:
                self._shown.adopt(stored)
        else:
            self._held_since = now if self._held_since is None else self._held_since
            self._look_at = now + LOOK_AGAIN
        self._settle()

    # --- the parts

    @property
    def _is_settled(self) -> bool:
        return self._due is Due.NOTHING and self._asking is Due.NOTHING

    def _need(self, due: Due) -> None:
        self._due = max(self._due, due, key=lambda each: each.value)

    def _is_older(self, tail: Candle) -> bool:
        """Whether a series that ends with ``tail`` has not come as far as the replica."""
        ours = self._replica.tail
        return ours is not None and progress(tail) < progress(ours)

    def _is_acceptable(self, stored: Snapshot | None, now: float) -> bool:
        if not self._replica.is_ahead_of(stored):
            return True
        if stored is None or self._held_since is None:
            return False
        # An owner that never had what we have goes on from where the store is; once it is as far, that is the series.
        return now - self._held_since >= HOLD_ON or not self._is_older(stored.candles[-1][0])

    def _settle(self) -> None:
        """The store was asked; go through what was announced meanwhile."""
        self._asking = Due.NOTHING
        for heard in self._waiting:
            self._hear(heard)
        self._waiting.clear()

    def _hear(self, heard: Commit | Position) -> None:
        if self._due is not Due.NOTHING:
            return  # it stands in the store, which is still to be asked
        if self._asking is Due.NOTHING:
            self._take(heard)
        elif len(self._waiting) < WAITING_AT_MOST:
            self._waiting.append(heard)
        else:
            self._need(Due.SERIES)

    def _take(self, heard: Commit | Position) -> None:
        ours = self._replica.position
        if self._held_since is not None:
            if isinstance(heard, Position) or not self._is_older(heard.candles[-1]):
                self._need(Due.SERIES)
        elif heard.life == ours.life and heard.revision <= ours.revision:
            pass  # shown already
        elif isinstance(heard, Commit) and self._follows(heard):
            self._publish(heard)
        else:
            self._need(Due.SERIES if heard.life == ours.life or isinstance(heard, Position) else Due.POSITION)

    def _follows(self, commit: Commit) -> bool:
        ours = self._replica.position
        if commit.life == ours.life:
            return commit.revision == ours.revision + 1
        return commit.begins and commit.replaces == ours.life and not self._is_older(commit.candles[-1])

    def _publish(self, commit: Commit) -> None:
        try:
            self._shown.publish(commit)
        except NotContinuous:
            # Of the same life and revision, and yet another series: a store went back, and on, before we saw it.
            self._need(Due.SERIES)
