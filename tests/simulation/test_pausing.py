"""A part of the tasks stands still, and all others go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from scripts.simulation import pausing

Told = list[tuple[str, float]]


@pytest.fixture(autouse=True)
def _nothing_is_paused_afterwards() -> Iterator[None]:
    yield
    pausing.forget()


class Clockwork:
    """A task and one below it, which say each second what time it is."""

    def __init__(self, told: Told, name: str) -> None:
        self.told = told
        self.name = name
        self.scope = trio.CancelScope()
        self.task: trio.lowlevel.Task

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.task = trio.lowlevel.current_task()
        with self.scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick)
                task_status.started()

    async def _tick(self) -> None:
        while True:
            await trio.sleep(1)
            self.told.append((self.name, trio.current_time()))


async def test_its_timers_fire_late_and_those_of_others_in_time(autojump_clock: trio.testing.MockClock) -> None:
    told: Told = []
    one, other = Clockwork(told, "one"), Clockwork(told, "other")
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await nursery.start(other.run)
        await trio.sleep(1.5)
        pausing.pause(one.task)
        await trio.sleep(3)
        pausing.resume(one.task)
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert [at for name, at in told if name == "other"] == [1, 2, 3, 4, 5, 6]
    assert [at for name, at in told if name == "one"] == [1, 4.5, 5.5]


async def test_what_is_cancelled_or_begun_meanwhile_waits_too(autojump_clock: trio.testing.MockClock) -> None:
    told: Told = []
    one = Clockwork(told, "one")
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        pausing.pause(one.task)
        below = one.task.child_nurseries[0]
        below.start_soon(one._tick)
        one.scope.cancel()
        with trio.move_on_after(10):
            while one.task in nursery.child_tasks:  # noqa: ASYNC110 - no event tells that a task has ended
                await trio.sleep(0.5)
        assert one.task in nursery.child_tasks
        pausing.resume(one.task)
        await trio.testing.wait_all_tasks_blocked()
        assert one.task not in nursery.child_tasks
    assert told == []


async def test_several_are_paused_at_once_each_for_its_own_time(autojump_clock: trio.testing.MockClock) -> None:
    told: Told = []
    one, other = Clockwork(told, "one"), Clockwork(told, "other")
    async with trio.open_nursery() as nursery:
        for each in (one, other):
            await nursery.start(each.run)
            pausing.pause(each.task)
        await trio.sleep(2.5)
        pausing.resume(one.task)
        await trio.sleep(1.75)
        pausing.resume(other.task)
        await trio.sleep(0.5)
        nursery.cancel_scope.cancel()
    assert told == [("one", 2.5), ("one", 3.5), ("other", 4.25), ("one", 4.5)]
    pausing.resume(one.task)  # of which there is nothing left
