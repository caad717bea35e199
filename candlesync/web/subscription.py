"""What a subscriber is sent: first the replay, then live, with nothing lost or out of order between them.

Each function here that moves a position is synchronous. It reads the replica as it stands, gives the messages, and sets
the position past them; whatever is committed later is pulled later. That is the same operation for a live candle (one
thing changed), for a slow client (its missed updates were replaced meanwhile), and for one that resumes.
"""

from __future__ import annotations

import trio

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.sync import State
from candlesync.hub import Subscriber, Topic
from candlesync.supervisor import Supervisor
from candlesync.web.parameters import Replay, Resume, Since, Start
from candlesync.web.refusal import Refusal

POSITION_WAIT = 5.0
"""Seconds that a position ahead of this node's replica is waited for (design, section 3)."""


async def follow(supervisor: Supervisor, series: Series, start: Start) -> Topic:
    """The topic of a series that can be served from ``start`` on.

    Raises what `Supervisor.ensure` raises, and `Refusal` ``too_old`` when ``start`` cannot be honoured whole.
    """
    topic = await supervisor.ensure(series)
    if isinstance(start, Resume) and start.position.life == topic.replica.life:
        with trio.move_on_after(POSITION_WAIT):
            while topic.replica.revision < start.position.revision:
                await topic.changed()
    check(topic, start)
    return topic


def check(topic: Topic, start: Start) -> None:
    """Raise `Refusal` ``too_old`` unless the topic can be served whole from ``start`` on."""
    replica = topic.replica
    match start:
        case Resume(position):
            if not replica.can_resume(position) or position.revision > replica.revision:
                raise _too_old(topic.series)
        case Since(open_time):
            if replica.since(open_time) is None:
                raise _too_old(topic.series)
        case Replay():
            pass


def begin(subscriber: Subscriber, start: Start) -> list[bytes]:
    """Set the subscriber's position and give the first messages for it. Synchronous: nothing comes in between.

    Raises `Refusal` ``too_old``.
    """
    topic = subscriber.topic
    check(topic, start)
    replica = topic.replica
    match start:
        case Resume(position):
            entries = replica.changed_since(position.revision)
        case Since(open_time):
            subscriber.only_since = open_time
            entries = replica.since(open_time) or []
        case Replay(count):
            entries = replica.newest(count)
    subscriber.life, subscriber.revision = replica.life, replica.revision
    return wire.catch_up(topic.series, entries, replica.position)


def pull(subscriber: Subscriber) -> list[bytes]:
    """What the subscriber has not been sent, in time order, and its position moved past it. Synchronous.

    Raises `Refusal` ``too_old`` when some of it has left the history or the series has begun a new life.
    """
    replica = subscriber.topic.replica
    if subscriber.life != replica.life or subscriber.revision < replica.trimmed:
        raise _too_old(subscriber.topic.series)
    entries = replica.changed_since(subscriber.revision)
    if subscriber.only_since is not None:
        entries = [entry for entry in entries if entry.open_time >= subscriber.only_since]
    subscriber.revision = replica.revision
    return wire.catch_up(subscriber.topic.series, entries, replica.position)


def pull_state(subscriber: Subscriber) -> State | None:
    """The state of the series if the subscriber was not told it yet."""
    state = subscriber.topic.state
    if state is subscriber.state:
        return None
    subscriber.state = state
    return state


def _too_old(series: Series) -> Refusal:
    return Refusal("too_old", f"what {series} missed since then is no longer all here: load it over REST again")
