"""Tasks that outlive who starts them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from candlesync.nursery import HeldNursery


class Tasks:
    def __init__(self) -> None:
        self.ended: list[str] = []

    async def stay(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.ended.append("stayed")

    async def fail(self) -> None:
        raise ValueError("of a task")


async def test_who_starts_a_task_may_leave() -> None:
    held, tasks = HeldNursery(), Tasks()
    before = held.nursery
    async with trio.open_nursery() as around:
        await around.start(held.run)

        async def begin() -> None:
            assert held.nursery is not None
            held.nursery.start_soon(tasks.stay)

        with trio.CancelScope() as scope:
            await begin()
            scope.cancel()
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        assert not tasks.ended
        around.cancel_scope.cancel()
    assert tasks.ended == ["stayed"]
    assert (before, held.nursery) == (None, None)


async def test_a_task_that_fails_ends_it_and_the_others() -> None:
    held, tasks = HeldNursery(), Tasks()
    with pytest.RaisesGroup(pytest.RaisesGroup(pytest.RaisesExc(ValueError, match="of a task"))):
        async with trio.open_nursery() as around:
            await around.start(held.run)
            assert held.nursery is not None
            held.nursery.start_soon(tasks.stay)
            held.nursery.start_soon(tasks.fail)
    assert tasks.ended == ["stayed"]
    assert held.nursery is None
