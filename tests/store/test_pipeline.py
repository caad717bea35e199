"""Group commit, without a server: what runs in the worker thread is told here what to do."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from candlesync.errors import StoreUnavailable
from candlesync.store.pipeline import Lane, Limits
from candlesync.store.reasons import NoAnswer
from candlesync.store.scripts import READ, Call
from candlesync.store.server import Outcome


class Server:
    """Gives each call its own key back, as soon as it is let."""

    def __init__(self) -> None:
        self.may_answer = threading.Semaphore(0)
        self.groups: list[list[str]] = []
        self.answer: Callable[[str], Outcome] = lambda key: key

    def execute(self, calls: Sequence[Call]) -> list[Outcome]:
        keys = [call.keys[0] for call in calls]
        self.groups.append(keys)
        assert self.may_answer.acquire(timeout=5)
        return [self.answer(key) for key in keys]


def call(key: str, size: int = 0) -> Call:
    return Call(READ, (key,), ("x" * size,))


class Callers:
    """Those who call; what each got."""

    def __init__(self, lane: Lane, nursery: trio.Nursery) -> None:
        self._lane = lane
        self._nursery = nursery
        self.got: dict[str, object] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def start(self, *keys: str, size: int = 0) -> None:
        """Calls that arrive together; returns when all of them wait."""
        for key in keys:
            self.scopes[key] = trio.CancelScope()
            self._nursery.start_soon(self._call, key, size)
        await trio.testing.wait_all_tasks_blocked(0.02)

    async def _call(self, key: str, size: int) -> None:
        with self.scopes[key]:
            try:
                self.got[key] = await self._lane.call(call(key, size))
            except StoreUnavailable as error:
                self.got[key] = error
        if self.scopes[key].cancelled_caught:
            self.got[key] = "cancelled"

    async def until(self, count: int) -> None:
        """Wait until so many have got something."""
        with trio.fail_after(5):
            while len(self.got) < count:  # noqa: ASYNC110 - each caller may be the last
                await trio.sleep(0.001)


@asynccontextmanager
async def lane_over(server: Server, *, threads: int = 4, **limits: float) -> AsyncIterator[tuple[Lane, Callers]]:
    made = Limits(
        deadline=limits.get("deadline", 5.0), calls=int(limits.get("calls", 100)), size=int(limits.get("size", 10_000))
    )
    lane = Lane(server.execute, made, trio.CapacityLimiter(threads))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lane.run)
        yield lane, Callers(lane, nursery)
        server.may_answer.release(100)
        nursery.cancel_scope.cancel()


async def test_what_arrives_while_a_pipeline_is_under_way_goes_as_one() -> None:
    server = Server()
    async with lane_over(server) as (lane, callers):
        await callers.start("a")
        await callers.start("b", "c")
        await callers.start("d")
        assert lane.waiting == 4
        server.may_answer.release(2)
        await callers.until(4)
        assert callers.got == {key: key for key in "abcd"}
        assert [sorted(group) for group in server.groups] == [["a"], ["b", "c", "d"]]
        assert (lane.pipelines, lane.largest, lane.waiting, lane.failures) == (2, 3, 0, 0)


async def test_a_pipeline_has_its_limits() -> None:
    server = Server()
    async with lane_over(server, calls=3, size=1000) as (_, callers):
        await callers.start("a")
        await callers.start("b", "c", "d", "e")
        await callers.start("f", "g", size=2000)
        server.may_answer.release(10)
        await callers.until(7)
        assert [len(group) for group in server.groups][:2] == [1, 3]
        assert all(len(group) <= 2 for group in server.groups[2:])
        assert sum(len(group) for group in server.groups) == 7


async def test_each_waiter_gets_its_own_error() -> None:
    server = Server()
    server.answer = lambda key: StoreUnavailable(f"no {key}") if key in "bd" else key
    async with lane_over(server) as (lane, callers):
        await callers.start("a", "b", "c", "d")
        server.may_answer.release()
        await callers.until(4)
        assert (callers.got["a"], callers.got["c"]) == ("a", "c")
        assert (str(callers.got["b"]), str(callers.got["d"])) == ("no b", "no d")
        assert lane.failures == 2


async def test_of_one_error_for_all_each_raises_one_of_its_own() -> None:
    server = Server()
    silence = NoAnswer("silent")
    server.answer = lambda _: silence
    async with lane_over(server) as (_, callers):
        await callers.start("a", "b")
        server.may_answer.release()
        await callers.until(2)
        one, other = callers.got["a"], callers.got["b"]
        assert str(one) == str(other) == "silent"
        assert one is not other
        assert type(one) is StoreUnavailable


async def test_what_waits_behind_a_silent_server_is_not_sent_to_it() -> None:
    server = Server()
    async with lane_over(server, calls=1) as (lane, callers):
        server.answer = lambda _: NoAnswer("silent")
        await callers.start("a")
        await callers.start("b", "c")
        server.may_answer.release()
        await callers.until(3)
        assert {str(got) for got in callers.got.values()} == {"silent"}
        assert server.groups == [["a"]]
        assert lane.failures == 3
        server.answer = lambda key: key
        server.may_answer.release()
        assert await lane.call(call("d")) == "d", "and who comes later is"


async def test_whoever_is_cancelled_before_it_was_sent_is_not_sent() -> None:
    server = Server()
    async with lane_over(server) as (lane, callers):
        await callers.start("a")
        await callers.start("b", "c")
        callers.scopes["b"].cancel()
        await callers.until(1)
        server.may_answer.release(2)
        await callers.until(3)
        assert callers.got == {"a": "a", "b": "cancelled", "c": "c"}
        assert server.groups == [["a"], ["c"]]
        assert lane.waiting == 0


async def test_whoever_is_cancelled_afterwards_leaves_the_others_theirs() -> None:
    server = Server()
    async with lane_over(server) as (_, callers):
        await callers.start("a", "b", "c")
        callers.scopes["b"].cancel()
        await callers.until(1)
        server.may_answer.release()
        await callers.until(3)
        assert callers.got == {"a": "a", "b": "cancelled", "c": "c"}


async def test_a_thread_that_does_not_come_back_is_given_up_and_the_next_goes_on() -> None:
    server = Server()
    async with lane_over(server, deadline=0.1) as (lane, callers):
        await callers.start("a")
        await callers.until(1)
        assert "within 0.1 s" in str(callers.got["a"])
        server.may_answer.release(2)  # the abandoned thread takes one of them
        assert await lane.call(call("b")) == "b"


async def test_when_all_threads_hang_nobody_waits_beyond_the_deadline() -> None:
    server = Server()
    async with lane_over(server, threads=1, deadline=0.1) as (lane, callers):
        await callers.start("a")
        await callers.until(1)
        with pytest.raises(StoreUnavailable, match=r"within 0\.1 s"):
            await lane.call(call("b"))
        assert server.groups == [["a"]], "the second was not even sent"


async def test_when_the_lane_ends_nobody_is_left_waiting() -> None:
    server = Server()
    lane = Lane(server.execute, Limits(calls=1), trio.CapacityLimiter(1))
    async with trio.open_nursery() as nursery:
        callers = Callers(lane, nursery)
        async with trio.open_nursery() as running:
            running.start_soon(lane.run)
            await callers.start("a")
            await callers.start("b")
            running.cancel_scope.cancel()
    assert str(callers.got["a"]) == "the store was closed before it answered"
    assert str(callers.got["b"]) == "the store was closed"
    with pytest.raises(StoreUnavailable, match="closed"):
        await lane.call(call("c"))
    server.may_answer.release(2)


async def test_a_mistake_in_the_program_is_not_taken_for_a_failing_server() -> None:
    server = Server()

    def mistake(_: str) -> Outcome:
        raise KeyError("a mistake")

    server.answer = mistake
    server.may_answer.release()
    with pytest.RaisesGroup(KeyError):
        async with lane_over(server) as (_, callers):
            await callers.start("a")
            await trio.sleep(5)
    assert "closed" in str(callers.got["a"]) or callers.got["a"] == "cancelled"
