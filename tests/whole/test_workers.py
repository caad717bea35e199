"""Several workers of the ``hypercorn`` command share a Redis behind one address."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import trio

from tests.whole.announced import hearing
from tests.whole.nodes import Deployment, Viewer, deploy
from tests.whole.test_nodes import HANDOVER, TAKEOVER, check, report, watching

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")


def children(process: int) -> set[int]:
    """The living children of a process."""
    listed = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return {int(child) for child in listed}


async def worker_of(deployment: Deployment, symbol: str) -> int:
    """The process that owns a symbol: a worker is called after its host and its number."""
    with trio.fail_after(10):
        while not (owner := (await deployment.owners("workers")).get(symbol, "")):  # noqa: ASYNC110 - as an outsider
            await trio.sleep(0.05)
    return int(owner.rpartition("/")[2])


async def test_workers_own_each_symbol_once_serve_everybody_and_are_replaced() -> None:
    async with deploy() as deployment:
        master = await deployment.start_workers(4, *SYMBOLS)
        await deployment.until_live(*SYMBOLS)
        viewers = [Viewer([master.host], number, SYMBOLS[number % 3]) for number in range(16)]
        wandering = [Viewer([master.host], 20 + number, SYMBOLS[number % 3]) for number in range(6)]
        with hearing(deployment.redis) as announced:
            async with watching(viewers, wandering):
                await trio.sleep(2)
                settled = time.monotonic()
                before = children(master.process.pid)
                names = {(await deployment.ready("workers"))["node"] for _ in range(60)}
                assert len(names) > 1, "not all is served by one worker"
                assert len(names) <= 4
                victim = await worker_of(deployment, "BTCUSDT")
                assert victim in before
                os.kill(victim, signal.SIGKILL)
                killed = time.monotonic()
                await trio.sleep(TAKEOVER + 2)
                after = children(master.process.pid)
                assert victim not in after
                assert len(after) == len(before), "it was replaced"
                assert await worker_of(deployment, "BTCUSDT") in after - {victim}
                waits = [v.chart.first_news(killed + 0.05) - killed for v in viewers if v.symbol == "BTCUSDT"]
                report("worker killed to the first news", waits)
                assert max(waits) <= TAKEOVER
                await trio.sleep(1)
                status, seconds = await master.end()
            report("the end of all workers", [seconds])
            assert status == 0
            assert seconds < 5, "the grace time of hypercorn.toml"
            for viewer in viewers:
                assert viewer.codes[1012] >= 1, viewer.codes
            await check(deployment, viewers)
        for symbol in SYMBOLS:
            announced.check_one_writer(symbol)
            # It may go to the worker that is new, which is a handover.
            spans = await deployment.not_one(settled, killed, symbol)
            assert spans == []
            spans = await deployment.not_one(killed, time.monotonic() - seconds - 0.5, symbol)
            assert all(span.connections == 0 for span in spans), spans
            assert all(span.end - span.begin <= (HANDOVER if span.begin > 0.2 else TAKEOVER) for span in spans), spans


async def test_workers_that_all_die_are_all_replaced() -> None:
    async with deploy() as deployment:
        master = await deployment.start_workers(4, "BTCUSDT")
        await deployment.until_live()
        viewers = [Viewer([master.host], number, "BTCUSDT") for number in range(8)]
        async with watching(viewers):
            await trio.sleep(1)
            named = {(await deployment.ready("workers"))["node"] for _ in range(60)}
            workers = {int(name.rpartition("/")[2]) for name in named}
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
            await trio.sleep(1)
            await deployment.until_live()
            await trio.sleep(2)
        await check(deployment, viewers)
        status, _ = await master.end()
        assert status == 0
