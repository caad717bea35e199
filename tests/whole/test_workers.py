"""Several workers of the ``hypercorn`` command share a Redis behind one address."""

from __future__ import annotations

import os
import signal
import time

import trio

from tests.processes import children
from tests.whole.announced import hearing
from tests.whole.nodes import Deployment, Viewer, deploy
from tests.whole.programs import PATIENCE
from tests.whole.test_nodes import HANDOVER, TAKEOVER, check, until_news, watching

GRACE = 5.0
"""Seconds, of hypercorn.toml."""
STARTED = 0.5
"""Seconds in which no process can have started that replaces another."""
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


async def worker_of(deployment: Deployment, symbol: str) -> int:
    """The process that owns a symbol: a worker is called after its host and its number."""
    with trio.fail_after(PATIENCE):
        while not (owner := (await deployment.owners("workers")).get(symbol, "")):  # noqa: ASYNC110 - as an outsider
            await trio.sleep(0.05)
    return int(owner.rpartition("/")[2])


async def names_of_workers(deployment: Deployment, least: int) -> set[str]:
    """The names of the workers that answer, of so many at least: each connection is served by any of them."""
    names: set[str] = set()

    async def ask() -> None:
        names.add((await deployment.ready("workers"))["node"])

    with trio.fail_after(PATIENCE):
        while len(names) < least:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(ask)
    return names


async def test_workers_own_each_symbol_once_serve_everybody_and_are_replaced() -> None:
    async with deploy() as deployment:
        master = await deployment.start_workers(4, *SYMBOLS)
        await deployment.until_live(*SYMBOLS)
        viewers = [Viewer([master.host], number, SYMBOLS[number % 3]) for number in range(16)]
        wandering = [Viewer([master.host], 20 + number, SYMBOLS[number % 3]) for number in range(6)]
        with hearing(deployment.redis) as announced:
            async with watching(deployment, viewers, wandering):
                await trio.sleep(1)
                settled = time.monotonic()
                before = children(master.process.pid)
                names = await names_of_workers(deployment, 2)
                assert len(names) <= 4
                victim = await worker_of(deployment, "BTCUSDT")
                assert victim in before
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                theirs = [viewer for viewer in viewers if viewer.symbol == "BTCUSDT"]
                await until_news(deployment, "a worker killed", theirs, killed, TAKEOVER)
                with trio.fail_after(PATIENCE):
                    # It may be seen there for a moment after its end.
                    while victim in (after := children(master.process.pid)) or len(after) < len(before):  # noqa: ASYNC110
                        await trio.sleep(0.05)
                assert len(after) == len(before), "it was replaced"
                with trio.fail_after(PATIENCE):  # one that was asked may not know yet
                    while await worker_of(deployment, "BTCUSDT") not in after:  # noqa: ASYNC110 - as an outsider
                        await trio.sleep(0.05)
                await trio.sleep(1)
                await deployment.until_shown(viewers)
                ending = time.monotonic()
                status, seconds = await master.end()
            assert status == 0
            deployment.stalls.check("the end of all workers", ending, seconds, GRACE)
            for viewer in viewers:
                assert viewer.codes[1012] >= 1, viewer.codes
            await check(deployment, viewers)
        for symbol in SYMBOLS:
            announced.check_one_writer(symbol)
            # It may go to a worker that began late, or is new, which is a handover.
            for since, until, is_after in ((settled, killed - 0.1, False), (killed - 0.1, ending, True)):
                for span in await deployment.not_one(since, until, symbol):
                    assert span.connections == 0, span
                    bound = TAKEOVER if is_after and span.begin < STARTED else HANDOVER
                    what = f"{symbol} without a connection"
                    deployment.stalls.check(what, since + span.begin, span.end - span.begin, bound)


async def test_workers_that_all_die_are_all_replaced() -> None:
    async with deploy() as deployment:
        master = await deployment.start_workers(3, "BTCUSDT")
        await deployment.until_live()
        viewers = [Viewer([master.host], number, "BTCUSDT") for number in range(8)]
        async with watching(deployment, viewers):
            await trio.sleep(0.5)
            workers = {int(name.rpartition("/")[2]) for name in await names_of_workers(deployment, 3)}
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            killed = time.monotonic()
            await until_news(deployment, "all workers killed", viewers, killed, PATIENCE)
            await deployment.until_live()
            assert not workers & children(master.process.pid)
        await check(deployment, viewers)
        status, _ = await master.end()
        assert status == 0
