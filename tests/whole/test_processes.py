"""Real processes and real sockets: the simulator, the server and charts, as a user starts them."""

from __future__ import annotations

import signal
from random import Random

import pytest
import trio

from tests.chart import Chart
from tests.whole.programs import (
    break_something,
    follow,
    follow_a_little,
    load,
    resume,
    run_program,
    server,
    simulator,
    truth,
)


async def test_charts_stay_true_over_real_sockets_while_binance_breaks() -> None:
    random, codes = Random(3), list[int]()
    stayed, resumed = [Chart() for _ in range(25)], [Chart() for _ in range(25)]
    async with simulator(0.25) as binance, server(binance, "BTCUSDT", "--silence", "1.5") as candlesync:
        async with trio.open_nursery() as nursery:
            for chart in stayed:
                await load(chart, candlesync.host)
                nursery.start_soon(follow, chart, candlesync.host)
            for chart in resumed:
                nursery.start_soon(resume, chart, [candlesync.host], random, codes)
            await trio.sleep(1)
            await break_something(binance, kind="drop", close_frame=False)
            await break_something(binance, kind="refuse", **{"for": 1})
            await trio.sleep(2.5)
            await break_something(binance, kind="hide_close")
            await break_something(binance, kind="duplicates", **{"for": 2})
            await break_something(binance, kind="late", **{"for": 2})
            await trio.sleep(2.5)
            await break_something(binance, kind="rest_behind", by_ms=100_000, **{"for": 2})
            await break_something(binance, kind="drop")
            await trio.sleep(3)
            await break_something(binance, kind="rest_429", retry_after=1, **{"for": 1})
            await break_something(binance, kind="drop")
            await trio.sleep(3)
            await break_something(binance, kind="silent", **{"for": 4})
            await trio.sleep(7)
            nursery.cancel_scope.cancel()
        for chart in stayed:
            assert chart.compare(await truth(binance, chart)) == []
            assert chart.messages > 50
        assert 4410 not in codes
        async with trio.open_nursery() as nursery:
            for chart in resumed:
                nursery.start_soon(follow_a_little, chart, candlesync.host)
        for chart in resumed:
            rows = await truth(binance, chart)
            assert chart.compare(rows) == []
            assert chart.newest * 1000 >= rows[-1][0] - 300_000


async def test_a_server_that_is_killed_and_started_again_leaves_no_gap_in_its_charts() -> None:
    chart, codes = Chart(), list[int]()
    async with simulator(0.25) as binance:
        async with server(binance, "BTCUSDT") as candlesync:
            host = candlesync.host
            await load(chart, host)
            await follow_a_little(chart, host)
            candlesync.process.kill()
            await candlesync.process.wait()
        await trio.sleep(2)
        async with server(binance, "BTCUSDT", bind=host), trio.open_nursery() as nursery:
            # Its store was its memory: the position is of another life, and the chart is told to load again.
            assert await until_closed(chart, host) == 4410
            nursery.start_soon(resume, chart, [host], Random(1), codes)
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
        assert chart.compare(await truth(binance, chart)) == []
        assert len(chart.candles) >= 1000


async def until_closed(chart: Chart, host: str) -> int:
    with trio.fail_after(20):
        while not (code := await follow(chart, host, f"&position={chart.position}")):  # noqa: ASYNC110 - a client's retry
            await trio.sleep(0.05)
    return code


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_with_clients_connected(signum: int) -> None:
    codes: list[int] = []

    async def note() -> None:
        codes.append(await follow(Chart(), candlesync.host))

    async with simulator(0.25) as binance, server(binance, "BTCUSDT") as candlesync:
        await load(Chart(), candlesync.host)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(note)
            await trio.sleep(0.7)
            status, seconds = await candlesync.end(signum)
        assert status == 0
        assert seconds < 5
        assert codes == [1012] * 5


async def test_the_demo_shows_candles_and_ends() -> None:
    async with run_program(["candlesync", "demo", "--bind", "127.0.0.1:0", "--minute", "0.5"]) as demo:
        chart = Chart()
        await load(chart, demo.host)
        with trio.move_on_after(3):
            await follow(chart, demo.host)
        assert chart.wrong == []
        assert chart.messages > 5
        status, _ = await demo.end()
        assert status == 0
