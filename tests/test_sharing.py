"""Work is done once for all who want it, and belongs to none of them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from candlesync.errors import UpstreamUnavailable
from candlesync.sharing import Sharing


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.error: UpstreamUnavailable | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return number


async def test_it_is_done_once_whoever_leaves(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    sharing = Sharing[str, int]()
    await nursery.start(sharing.run)
    work = Work()
    got: list[int] = []

    async def want() -> None:
        got.append(await sharing.get("key", work))

    async with trio.open_nursery() as wanting:
        for _ in range(3):
            wanting.start_soon(want)
        with trio.move_on_after(0.5) as left:
            await sharing.get("key", work)
    assert left.cancelled_caught
    assert got == [1, 1, 1]
    assert await sharing.get("key", work) == 2, "nothing is kept"


async def test_all_who_wait_are_told_why_there_is_no_result(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    sharing = Sharing[str, int]()
    await nursery.start(sharing.run)
    work = Work()
    work.error = UpstreamUnavailable("away")
    told = 0

    async def want() -> None:
        nonlocal told
        with pytest.raises(UpstreamUnavailable, match="away"):
            await sharing.get("key", work)
        told += 1

    async with trio.open_nursery() as wanting:
        wanting.start_soon(want)
        wanting.start_soon(want)
    assert told == 2
    work.error = None
    assert await sharing.get("key", work) == 2


async def test_nobody_works_when_nobody_runs(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    sharing = Sharing[str, int]()
    assert not sharing.is_open
    with pytest.raises(UpstreamUnavailable, match="going down"):
        await sharing.get("key", Work())
    refused = trio.Event()

    async def want() -> None:
        with pytest.raises(UpstreamUnavailable, match="going down"):
            await sharing.get("key", Work())
        refused.set()

    async with trio.open_nursery() as running:
        await running.start(sharing.run)
        nursery.start_soon(want)
        await wait_all_tasks_blocked()
        running.cancel_scope.cancel()
    await refused.wait()
