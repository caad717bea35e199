"""A thousand clients that read nothing: the others do not notice, and what is kept for them does not grow."""

from __future__ import annotations

import gc
import resource
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
import trio

from candlesync.edge.line import Line
from candlesync.hub import Topic
from candlesync.web.session import OneSeries
from tests.edge.clients import PATIENCE, Raw, opened
from tests.edge.test_frames import ONE, SMALL, publish
from tests.edge.test_server import eventually
from tests.web.builders import Port, Web, on_a_port

STUCK = 1000


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    """Both ends of each connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * STUCK + 500
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"{wanted} open files are needed, {hard} allowed: raise the limit (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def deliver(topic: Topic, good: Raw, count: int) -> None:
    """Publish commits, each of which the good client has before the next."""
    for _ in range(count):
        publish(topic)
        await good.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
        good.received = b""


async def get_stuck(topic: Topic, port: Port, stack: AsyncExitStack, web: Web) -> None:
    for _ in range(STUCK):
        await stack.enter_async_context(opened(port, ONE, receive_buffer=SMALL))
    await eventually(lambda: len(web.sockets.open) == STUCK + 1)
    with trio.fail_after(2 * PATIENCE):
        while len(Line._waiting) < STUCK:
            publish(topic, 20)
            await trio.sleep(0.01)


async def test_a_thousand_that_read_nothing_keep_nobody_waiting_and_cost_no_memory() -> None:
    web = Web()
    topic = web.topic()
    async with (
        # A ping that waits costs a few KiB a client, once: on a slow machine the first came amid what is measured.
        on_a_port(web, send_buffer=SMALL, send_timeout=600, websocket_ping_interval=600.0) as port,
        opened(port, ONE) as good,
        AsyncExitStack() as stack,
    ):
        await eventually(lambda: topic._parked)
        await get_stuck(topic, port, stack, web)
        await good.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
        await deliver(topic, good, 50)
        assert len(topic._parked) == 1
        lines = [session._line for session in web.sockets.open if isinstance(session, OneSeries)]
        rests = sorted(len(line._rest) for line in lines if isinstance(line, Line))
        assert len(rests) == STUCK + 1
        assert rests[-1] <= 2 * 16 * 1024
        assert rests[1] > 0

        tracemalloc.start()
        await deliver(topic, good, 100)
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        await deliver(topic, good, 400)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert after - before < 400 * STUCK, "400 commits later not a byte a commit is kept for a client"

        port.stop.set()
        await good.read_all()
        end = good.end()
        assert end is not None
        assert end[0] == 1012
        await eventually(lambda: not web.sockets.open)
        assert not topic.subscribers


async def test_a_thousand_that_read_nothing_are_gone_after_the_send_timeout() -> None:
    web = Web()
    topic = web.topic()
    async with (
        on_a_port(web, send_buffer=SMALL, send_timeout=3) as port,
        opened(port, ONE) as good,
        AsyncExitStack() as stack,
    ):
        for _ in range(STUCK):
            await stack.enter_async_context(opened(port, ONE, receive_buffer=SMALL))
        await eventually(lambda: len(web.sockets.open) == STUCK + 1)
        with trio.fail_after(2 * PATIENCE):
            while len(web.sockets.open) > 1:
                publish(topic, 20)
                await good.read_until(f'"position":"life0-{topic.replica.revision}"'.encode())
                good.received = b""
                await trio.sleep(0.02)
        assert len(topic.subscribers) == 1
        assert not Line._waiting
