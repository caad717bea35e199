"""Makes a failing schedule small: what is left is what it takes (delta debugging).

Events are dropped in ever smaller parts for as long as the same invariant is still broken. As a schedule repeats its
history exactly, one run of each candidate tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from .schedule import Event, Schedule

Fails = Callable[[Schedule], bool]
"""Whether a schedule fails in the same way."""


def shrink(schedule: Schedule, fails: Fails, *, until: float | None = None) -> Schedule:
    """The smallest schedule found that still ``fails``; what begins after ``until`` (seconds) was not needed anyway."""
    if until is not None:
        before = [event for event in schedule.events if (event.at or 0.0) <= until]
        shorter = msgspec.structs.replace(schedule, days=min(schedule.days, (until + 60.0) / 86_400.0))
        for candidate in (shorter.with_events(before), schedule.with_events(before)):
            if fails(candidate):
                schedule = candidate
                break
    schedule = _with_fewer_events(schedule, fails)
    for clients in range(schedule.clients):
        fewer = msgspec.structs.replace(schedule, clients=clients)
        if fails(fewer):
            return fewer
    return schedule


def _with_fewer_events(schedule: Schedule, fails: Fails) -> Schedule:
    events: Sequence[Event] = schedule.events
    parts = 2
    while events:
        size = max(1, len(events) // parts)
        for start in range(0, len(events), size):
            rest = [*events[:start], *events[start + size :]]
            if fails(schedule.with_events(rest)):
                events, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(events), parts * 2)
    return schedule.with_events(events)
