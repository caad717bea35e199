"""Real processes and real sockets: the simulator, the server and charts, as a user starts them."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from functools import partial
from random import Random

import pytest
import trio

from candlesync.core.interval import Interval
from tests.chart import Chart
from tests.stalls import stalls
from tests.whole.programs import (
    PATIENCE,
    Program,
    break_something,
    follow,
    follow_a_little,
    free_host,
    load,
    market_time,
    resume,
    run_program,
    server,
    simulator,
    truth,
)


async def until_shown(binance: Program, charts: Sequence[Chart]) -> None:
    """Until these charts, all of which are followed, show the minute of the market that is now."""
    now = await market_time(binance)
    with trio.fail_after(PATIENCE):
        while not all(chart.newest * 1000 >= Interval.M1.floor(now) for chart in charts):  # noqa: ASYNC110 - as an outsider
            await trio.sleep(0.02)


async def go_on(chart: Chart, host: str, codes: list[int]) -> None:
    """Follow from where the chart is, for ever."""
    while True:
        codes.append(await follow(chart, host, f"&position={chart.position}"))
        await trio.sleep(0.05)


async def test_charts_stay_true_over_real_sockets_while_binance_breaks() -> None:
    random, codes = Random(3), list[int]()
    stayed, resumed = [Chart() for _ in range(25)], [Chart() for _ in range(25)]
    async with simulator(0.25) as binance, server(binance, "BTCUSDT", "--silence", "1.5") as candlesync:
        async with trio.open_nursery() as nursery:
            for chart in stayed:
                await load(chart, candlesync.host)
                nursery.start_soon(partial(follow, chart, candlesync.host, handshake=PATIENCE))
            for chart in resumed:
                nursery.start_soon(resume, chart, [candlesync.host], random, codes)
            await until_shown(binance, stayed)
            await break_something(binance, kind="drop", close_frame=False)
            await break_something(binance, kind="refuse", **{"for": 1})
            await trio.sleep(1.2)
            await until_shown(binance, stayed)
            await break_something(binance, kind="hide_close")
            await break_something(binance, kind="duplicates", **{"for": 2})
            await break_something(binance, kind="late", **{"for": 2})
            await trio.sleep(2)
            await until_shown(binance, stayed)
            await break_something(binance, kind="rest_behind", by_ms=100_000, **{"for": 2})
            await break_something(binance, kind="drop")
            await trio.sleep(2)
            await until_shown(binance, stayed)
            await break_something(binance, kind="rest_429", retry_after=1, **{"for": 1})
            await break_something(binance, kind="drop")
            await trio.sleep(1)
            await until_shown(binance, stayed)
            await break_something(binance, kind="silent", **{"for": 3})
            await trio.sleep(3)
            await until_shown(binance, stayed)
            with trio.fail_after(PATIENCE):
                while not all(chart.messages > 50 for chart in stayed):  # noqa: ASYNC110 - as an outsider
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        for chart in stayed:
            assert chart.compare(await truth(binance, chart)) == []
        assert 4410 not in codes
        async with trio.open_nursery() as nursery:
            for chart in resumed:
                nursery.start_soon(go_on, chart, candlesync.host, codes)
            await until_shown(binance, resumed)
            nursery.cancel_scope.cancel()
        for chart in resumed:
            assert chart.compare(await truth(binance, chart)) == []
        assert 4410 not in codes


async def test_a_server_that_is_killed_and_started_again_leaves_no_gap_in_its_charts() -> None:
    chart, codes = Chart(), list[int]()
    async with simulator(0.25) as binance:
        host = free_host()
        async with server(binance, "BTCUSDT", bind=host) as candlesync:
            await load(chart, host)
            await follow_a_little(chart, host)
            candlesync.process.kill()
            await candlesync.process.wait()
        await trio.sleep(1)
        async with server(binance, "BTCUSDT", bind=host), trio.open_nursery() as nursery:
            # Its store was its memory: the position is of another life, and the chart is told to load again.
            assert await until_closed(chart, host) == 4410
            nursery.start_soon(resume, chart, [host], Random(1), codes)
            await trio.sleep(2)
            await until_shown(binance, [chart])
            nursery.cancel_scope.cancel()
        assert chart.compare(await truth(binance, chart)) == []
        assert len(chart.candles) >= 1000


async def until_closed(chart: Chart, host: str) -> int:
    with trio.fail_after(PATIENCE):
        while not (code := await follow(chart, host, f"&position={chart.position}")):  # noqa: ASYNC110 - a client's retry
            await trio.sleep(0.05)
    return code


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_with_clients_connected(signum: int) -> None:
    charts = [Chart() for _ in range(5)]
    codes: list[int] = []

    async def note(chart: Chart) -> None:
        codes.append(await follow(chart, candlesync.host, handshake=PATIENCE))

    async with simulator(0.25) as binance, server(binance, "BTCUSDT") as candlesync:
        await load(Chart(), candlesync.host)
        async with trio.open_nursery() as nursery:
            for chart in charts:
                nursery.start_soon(note, chart)
            with trio.fail_after(PATIENCE):
                while not all(chart.messages for chart in charts):  # noqa: ASYNC110 - as an outsider
                    await trio.sleep(0.02)
            with stalls() as measured:
                began = time.monotonic()
                status, seconds = await candlesync.end(signum)
                measured.check("the end", began, seconds, 5.0)
        assert status == 0
        assert codes == [1012] * 5


@pytest.mark.parametrize("venue", ["spot", "usdm"])
async def test_the_demo_shows_candles_and_ends(venue: str) -> None:
    arguments = ["candlesync", "demo", "--venue", venue, "--bind", "127.0.0.1:0", "--minute", "0.5"]
    async with run_program(arguments) as demo:
        chart = Chart()
        await load(chart, demo.host)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(follow, chart, demo.host, handshake=PATIENCE))
            with trio.fail_after(PATIENCE):
                while chart.messages <= 5:  # noqa: ASYNC110 - as an outsider
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        assert chart.wrong == []
        status, _ = await demo.end()
        assert status == 0
