"""Ways to leak on purpose, one at a time: nothing goes wrong but that memory grows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio

from candlesync import announcements, hub, supervisor, symbol
from candlesync.core.entry import Entry
from candlesync.core.interval import Interval
from candlesync.core.replica import Commit
from scripts.simulation import schedule
from tests.simulation.broken import Break


class _SameContext:
    def run(self, act: Callable[..., Any], *arguments: object) -> object:
        return act(*arguments)


def keeps_the_request(patch: pytest.MonkeyPatch) -> None:
    """What a request has made start runs in the request's context, and holds it."""
    for module in (supervisor, symbol):
        patch.setattr(module, "Context", _SameContext)


def keeps_the_subscriber(patch: pytest.MonkeyPatch) -> None:
    """Who has left is a subscriber for ever."""
    patch.setattr(hub.Topic, "unsubscribe", lambda _self, _subscriber: None)


def keeps_the_dead(patch: pytest.MonkeyPatch) -> None:
    """Who wants to be told of the store's announcements is told for ever, even if it has died."""

    @contextmanager
    def broken(self: announcements.Announcements, act: Callable[[], None]) -> Iterator[None]:
        self._calls.append(act)
        yield

    patch.setattr(announcements.Announcements, "each_time_listening", broken)


def keeps_the_idle(patch: pytest.MonkeyPatch) -> None:
    """A series that somebody has looked at once is followed for ever."""

    async def broken(_self: supervisor.Supervisor) -> None:
        await trio.sleep_forever()

    patch.setattr(supervisor.Supervisor, "_stop_idle", broken)


def keeps_all_revisions(patch: pytest.MonkeyPatch) -> None:
    """The hub writes down what it has published, and never forgets any of it."""
    publish = hub.Topic.publish

    def broken(self: hub.Topic, commit: Commit) -> list[Entry]:
        self._statistics.__dict__.setdefault("published", []).append(commit.revision)
        return publish(self, commit)

    patch.setattr(hub.Topic, "publish", broken)


LEAKS: dict[str, Break] = {
    "a request is kept by what it started": Break(
        keeps_the_request,
        "bounded",
        "held of those that have left: {'Request': ",
        (schedule.Wanted(at=400.0, symbol="SOLUSDT", interval=Interval.M15, seconds=6000.0),),
        clients=1,
    ),
    "a subscriber is kept": Break(
        keeps_the_subscriber,
        "bounded",
        "held of those that have left: {'Peer': ",
        (schedule.ClientVanishes(at=400.0, client=0, after=300.0),),
        clients=1,
    ),
    "the idle are kept": Break(
        keeps_the_idle,
        "bounded",
        "SOLUSDT 15m: nobody has wanted it since",
        (schedule.Wanted(at=400.0, symbol="SOLUSDT", interval=Interval.M15, seconds=100.0),),
        clients=0,
    ),
    "the dead are kept": Break(
        keeps_the_dead,
        "bounded",
        "of candlesync.",
        tuple(schedule.Cancel(at=400.0 + 70.0 * turn, what="symbol", which=0, steps=0) for turn in range(20)),
        clients=0,
    ),
    "revisions are kept": Break(keeps_all_revisions, "bounded", "HubStatistics'> holds", clients=0),
}
"""Each leak, and how it is seen."""
