"""Ways to break on purpose what several nodes do together; see ``tests.simulation.broken``."""

from __future__ import annotations

from math import inf

import pytest

from candlesync.core import following
from candlesync.core.candle import Series
from candlesync.core.replica import Commit
from candlesync.core.report import SeriesReport
from candlesync.core.sync import State
from candlesync.errors import Fenced
from scripts.simulation import schedule
from tests import shared_store
from tests.shared_store import Lease, SharedMemory
from tests.simulation.broken import Break


def fences_nobody(patch: pytest.MonkeyPatch) -> None:
    """The store looks whether there is a fencing token, and not which."""

    def broken(self: SharedMemory, symbol: str, _token: int) -> None:
        if symbol not in self.tokens:
            raise Fenced(symbol)

    patch.setattr(SharedMemory, "check", broken)


def announces_first(patch: pytest.MonkeyPatch) -> None:
    """A commit is announced, and then made."""
    commit = SharedMemory.commit

    def broken(self: SharedMemory, series: Series, made: Commit, token: int) -> None:
        self._announce("committed", lambda audience: audience.committed(series, made))
        commit(self, series, made, token)

    patch.setattr(SharedMemory, "commit", broken)


def trusts_its_ears(patch: pytest.MonkeyPatch) -> None:
    """A follower takes what it has heard for all that there was, whatever its owner says of where the series is."""

    def reported(self: following.Following, report: SeriesReport | None, at: float) -> None:
        self._report, self._reported_at = report, at

    def state(self: following.Following, now: float) -> State:
        if now >= self.fresh_until or self._report is None:
            return State.STALE
        return self._report.state

    patch.setattr(following.Following, "reported", reported)
    patch.setattr(following.Following, "state", state)


def follows_back(patch: pytest.MonkeyPatch) -> None:
    """A follower takes over whatever the store holds."""
    patch.setattr(following.Following, "_is_acceptable", lambda _self, _stored, _now: True)


def leases_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A lease ends when it is released, and never by itself."""
    patch.setattr(shared_store, "Lease", lambda owner, _until: Lease(owner, inf))


UNHEARD = tuple(schedule.NodeMisses(at=400.0, node=node, seconds=600.0, what="committed") for node in (0, 1))
"""Neither of two nodes hears of commits."""


BREAKS_OF_NODES: dict[str, Break] = {
    "nobody is fenced": Break(
        fences_nobody,
        "fenced",
        "was committed with token",
        (schedule.NodePaused(at=400.0, node=0, seconds=90.0),),
        nodes=2,
    ),
    "announced before the commit": Break(announces_first, "published after commit", "no commit has made", nodes=2),
    "a follower trusts its ears": Break(trusts_its_ears, "live", "is said to be live by a follower", UNHEARD, nodes=2),
    "a follower goes back with the store": Break(
        follows_back, "back in time", "is shown after", (schedule.StoreFallsBack(at=900.0, by=500.0),), nodes=2
    ),
    "a dead node keeps its symbols": Break(
        leases_for_ever, "owned", "nobody owns", (schedule.NodeDies(at=400.0, node=0, after=30.0),), nodes=2
    ),
}
"""Each mistake, and how it is seen."""
