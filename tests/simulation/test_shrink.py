"""A failing schedule is made small, and what is left still fails."""

from __future__ import annotations

from scripts.simulation.schedule import Cancel, Event, Schedule, StoreWiped
from scripts.simulation.shrink import shrink


def event(number: int) -> Event:
    return Cancel(at=float(number), what="client", which=number, steps=0)


def test_only_what_it_takes_is_left() -> None:
    needed = {event(3), event(17)}
    tried: list[Schedule] = []

    def fails(schedule: Schedule) -> bool:
        tried.append(schedule)
        return needed <= set(schedule.events) and schedule.clients >= 2

    small = shrink(Schedule(seed=1, events=tuple(map(event, range(40)))), fails)
    assert set(small.events) == needed
    assert small.clients == 2
    assert fails(small)
    assert len(tried) < 80, "each is a whole simulation"


def test_what_comes_after_the_failure_goes_at_once() -> None:
    events = (event(1), StoreWiped(at=5_000.0))
    small = shrink(Schedule(seed=1, events=events), lambda schedule: event(1) in schedule.events, until=100.0)
    assert small.events == (event(1),)
    assert small.days < 0.01
    assert small.clients == 0


def test_a_failure_that_needs_nothing_has_nothing_left() -> None:
    small = shrink(Schedule(seed=1, events=tuple(map(event, range(9)))), lambda _: True)
    assert small.events == ()
