"""What one socket is sent in one turn of the loop goes out together, in order, and none of it is lost or kept on."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.core.wire import BATCH
from candlesync.web.bundle import Bundle, Turn
from tests.pipe import Pipe

BIG = b"x" * (BATCH // 4)
ended = trio.testing.wait_all_tasks_blocked


class Client:
    """A connection with its bundle, and how often it was said to be behind."""

    def __init__(self, turn: Turn, *, room: float = math.inf) -> None:
        self.pipe = Pipe(room)
        self.behind = 0
        self.bundle = Bundle(self.pipe, turn, self._fall_behind)

    def _fall_behind(self) -> None:
        self.behind += 1


@asynccontextmanager
async def running(turn: Turn) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(turn.run)
        await ended()
        yield
        nursery.cancel_scope.cancel()


async def test_what_comes_in_one_turn_goes_out_in_one_write() -> None:
    turn = Turn()
    clients = [Client(turn) for _ in range(3)]

    async def commit(frames: bytes) -> None:
        await trio.lowlevel.checkpoint()
        for client in clients:
            assert client.bundle.offer(frames) == len(frames)

    async with running(turn):
        for names in (b"abc", b"de"):
            async with trio.open_nursery() as nursery:
                for name in names:
                    nursery.start_soon(commit, b"%c" % name)
        await ended()
        for client in clients:
            assert [sorted(write) for write in client.pipe.offers] == [[*b"abc"], [*b"de"]]
            assert client.pipe.got == b"".join(client.pipe.offers)
            assert client.behind == 0


async def test_frames_keep_their_order() -> None:
    turn = Turn()
    client = Client(turn)
    async with running(turn):
        for letter in b"abcdef":
            client.bundle.offer(b"%c" % letter)
        await ended()
        assert client.pipe.offers == [b"abcdef"]


async def test_what_is_pushed_goes_behind_what_was_offered() -> None:
    turn = Turn()
    client = Client(turn)
    async with running(turn):
        client.bundle.offer(b"a")
        assert await client.bundle.push(b"b")
        client.bundle.offer(b"c")
        await ended()
        assert client.pipe.got == b"abc"
        assert client.pipe.offers == [b"c"]


@pytest.mark.parametrize("has_run", [False, True])
async def test_without_its_task_nothing_is_kept(has_run: bool) -> None:
    turn = Turn()
    if has_run:
        async with running(turn):
            pass
    client = Client(turn)
    client.bundle.offer(b"a")
    assert client.pipe.got == b"a"


async def test_what_was_taken_goes_out_when_its_task_is_cancelled() -> None:
    turn = Turn()
    client = Client(turn)
    async with running(turn):
        client.bundle.offer(b"a")
    assert client.pipe.got == b"a"


async def test_more_than_a_batch_goes_out_in_several_writes() -> None:
    turn = Turn()
    client = Client(turn)
    async with running(turn):
        for _ in range(10):
            assert client.bundle.offer(BIG) == len(BIG)
        await ended()
        assert list(map(len, client.pipe.offers)) == [BATCH, BATCH, BATCH // 2]


async def test_for_a_client_that_takes_nothing_no_more_than_a_batch_is_kept() -> None:
    turn = Turn()
    client = Client(turn, room=0)
    async with running(turn):
        assert [client.bundle.offer(BIG) for _ in range(6)] == [len(BIG)] * 4 + [0, 0]
        await ended()
        assert client.behind >= 1
        client.pipe.widen(math.inf)
        await client.bundle.push(b"last")
        assert client.pipe.got == BIG * 4 + b"last"
        assert client.bundle.offer(b"more") == 4


async def test_for_a_client_that_takes_a_part_the_rest_is_the_lines() -> None:
    turn = Turn()
    client = Client(turn, room=1)
    async with running(turn):
        client.bundle.offer(b"abc")
        await ended()
        assert (client.pipe.got, client.behind) == (b"a", 1)
        client.bundle.offer(b"de")
        await ended()
        assert client.behind == 2, "and what it was offered later is still to be pushed"
        client.pipe.widen(math.inf)
        await client.bundle.push(b"f")
        assert client.pipe.got == b"abcdef"


ACTIONS = st.one_of(
    st.tuples(st.just("offer"), st.integers(1, BATCH // 2)),
    st.tuples(st.just("room"), st.integers(0, BATCH)),
    st.tuples(st.sampled_from(["turn", "push"]), st.just(0)),
)


@settings(max_examples=200, deadline=None)
@given(actions=st.lists(ACTIONS, max_size=40))
def test_whatever_the_client_takes_it_gets_all_that_was_taken_for_it(actions: list[tuple[str, int]]) -> None:
    async def main() -> None:
        turn = Turn()
        async with running(turn), trio.open_nursery() as nursery:
            pipe, taken, pushing = Pipe(0), b"", trio.Lock()

            async def push() -> None:
                async with pushing:
                    await bundle.push(b"")

            bundle = Bundle(pipe, turn, partial(nursery.start_soon, push))
            for number, (kind, size) in enumerate(actions):
                if kind == "offer":
                    frames = b"%c" % (number % 256) * size
                    count = bundle.offer(frames)
                    assert count in {0, size}
                    taken += frames[:count]
                elif kind == "room":
                    pipe.widen(size)
                elif kind == "turn":
                    await ended()
                else:
                    frames = b"%c" % (number % 256) * 10
                    taken += frames
                    nursery.start_soon(bundle.push, frames)
                    await ended()
                assert taken.startswith(pipe.got)
            pipe.widen(math.inf)
            await ended()
            assert pipe.got == taken

    trio.run(main)
