"""The chart page of a real server in a real browser, while the server dies and comes back."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import trio

from tests.browser import PATIENCE, Tab, chromium, needs_chromium
from tests.whole.programs import free_host, open_client, server, simulator

pytestmark = needs_chromium

STATE = "document.getElementById('badge').dataset.state"
NEWEST = "candlesync.feed.candles.at(-1).time"
CANDLES = "candlesync.feed.candles.map(({ position, ...candle }) => candle)"
DRAWN = "candlesync.candles.data().map(({ time, open, high, low, close }) => ({ time, open, high, low, close }))"


async def rest(host: str) -> list[dict[str, Any]]:
    async with open_client() as client:
        candles: list[dict[str, Any]] = (await client.get(f"http://{host}/candles/BTCUSDT/1m")).json()
    return candles


async def check(tab: Tab, host: str) -> None:
    """The page has no missing minute; what REST says of the closed ones, it has and draws. A correction may be on its
    way to one of them only.
    """
    with trio.move_on_after(PATIENCE):
        while await difference(tab, host):  # noqa: ASYNC110 - as an outsider
            await trio.sleep(0.2)
    assert await difference(tab, host) == {}


async def difference(tab: Tab, host: str) -> dict[int, object]:
    """What the page has, what it draws, and what REST says, of each candle in which they are not the same."""
    shown, drawn = await tab.value(CANDLES), await tab.value(DRAWN)
    truth = {candle["time"]: candle for candle in await rest(host) if candle["closed"]}
    times = [candle["time"] for candle in shown]
    assert all(after - before == 60 for before, after in pairwise(times))
    assert [bar["time"] for bar in drawn[: len(times)]] == times
    known = [
        (candle, bar, truth[candle["time"]])
        for candle, bar in zip(shown, drawn, strict=False)
        if candle["time"] in truth
    ]
    assert len(known) > 900
    return {
        candle["time"]: (candle, bar, true)
        for candle, bar, true in known
        if candle["closed"] and not (candle == true and all(bar[name] == true[name] for name in bar))
    }


async def followed(tab: Tab, host: str, minutes: int) -> None:
    """Wait until the page has so many minutes more than now."""
    newest = (await rest(host))[-1]["time"]
    await tab.until(f"{NEWEST} >= {newest + 60 * minutes}")


async def test_a_page_whose_server_was_killed_for_minutes_has_them_all() -> None:
    host = free_host()
    async with AsyncExitStack() as stack:
        binance = await stack.enter_async_context(simulator(0.5))
        browser = await stack.enter_async_context(chromium())
        first = await stack.enter_async_context(server(binance, "BTCUSDT", bind=host))
        async with browser.tab(host) as tab:
            await tab.until(STATE, "live")
            await followed(tab, host, 2)
            await check(tab, host)
            assert tab.console == []
            newest = await tab.value(NEWEST)
            await first.kill()
            await tab.until(STATE, "offline")
            await trio.sleep(4)  # eight minutes of the market
            async with server(binance, "BTCUSDT", bind=host):
                await tab.until(f"{NEWEST} > {newest} + 8 * 60")
                await tab.until(STATE, "live")
                await followed(tab, host, 2)
                await check(tab, host)
                assert await tab.open_sockets() == 1
                # What the browser itself says of attempts while nobody is there; no page can keep it from that.
                expected = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "WebSocket connection to")
                assert [said for said in tab.console if not any(part in said for part in expected)] == []
                assert tab.foreign == []
