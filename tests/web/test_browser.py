"""The chart page in a real browser, over the real edge; the test commits what the page is to show."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import trio

from candlesync.binance.venue import USDM
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.web.access import AccessSettings, Token
from tests.browser import PATIENCE, Tab, chromium, needs_chromium
from tests.builders import BTC, T0, candle, flat, forming, minute, minutes
from tests.history import Exchange
from tests.web.builders import Web, commit, on_a_port

pytestmark = needs_chromium

README = Path(__file__).parent.parent.parent / "README.md"

ETH = Series("ETHUSDT", Interval.M1)
BTC_THREES = Series("BTCUSDT", Interval.M3)
BTC_HOURS = Series("BTCUSDT", Interval.H1)


@asynccontextmanager
async def shown(web: Web, path: str = "/", *, console: Sequence[str] = (), **context: Any) -> AsyncIterator[Tab]:
    """The page in a browser. In its console there is nothing but what is expected, and no other host is asked."""
    async with on_a_port(web) as port, chromium() as browser:
        async with browser.tab(f"127.0.0.1:{port.number}", path, **context) as tab:
            yield tab
            assert await tab.value("document.querySelectorAll('script:not([src])').length") == 0
        assert tab.console == list(console)
        assert tab.foreign == []


LENGTH = "candlesync.feed.candles.length"
DRAWN = "candlesync.candles.data().length"
STATE = "document.getElementById('badge').dataset.state"


def text(name: str) -> str:
    return f"document.getElementById('{name}').innerText.trim()"


def pixels(red: int, green: int, blue: int) -> str:
    """Whether the chart, as it is seen, has more than a few pixels of a colour."""
    return f"""(() => {{
        const seen = candlesync.chart.takeScreenshot();
        const {{ data }} = seen.getContext("2d").getImageData(0, 0, seen.width, seen.height);
        let count = 0;
        const far = (at, colour) => Math.abs(data[at] - colour);
        for (let at = 0; at < data.length; at += 4)
            count += far(at, {red}) + far(at + 1, {green}) + far(at + 2, {blue}) < 6;
        return count > 20;
    }})()"""


UP, DOWN = pixels(0x0B, 0x8A, 0x7D), pixels(0xD3, 0x32, 0x3F)
FILLED = pixels(0xF1, 0xEB, 0xDD)  # the shade over an outage: 16 % of its colour on white


async def same_as(tab: Tab, web: Web, series: Series = BTC) -> None:
    """Wait until the page has, and its chart draws, what REST answers now."""
    rest = (await web.get(f"/candles/{series.symbol}/{series.interval}")).json
    await tab.until("candlesync.feed.candles.map(({ position, ...candle }) => candle)", rest)
    prices = ("time", "open", "high", "low", "close")
    drawn = "candlesync.candles.data().map(({ time, open, high, low, close }) => [time, open, high, low, close])"
    await tab.until(drawn, [[candle[name] for name in prices] for candle in rest])
    await tab.until("candlesync.volume.data().map(({ value }) => value)", [candle["volume"] for candle in rest])


async def test_candles_are_drawn_updated_followed_and_corrected() -> None:
    web = Web()
    topic = web.topic([*minutes(0, 7), flat(minute(8)), candle(minute(9), "36950.5")])
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        await same_as(tab, web)
        for colour in (UP, DOWN, FILLED):
            await tab.until(colour)
        assert await tab.value(text("last")) == "36950.50"
        commit(topic, forming(minute(10), "37001.25"))
        await tab.until(text("last"), "37001.25")
        commit(topic, forming(minute(10), "37002.5", trades=20))
        await same_as(tab, web)
        commit(topic, candle(minute(3), "36999", trades=99))
        await same_as(tab, web)
        commit(topic, candle(minute(8), "37000.75"))
        await same_as(tab, web)
        await tab.until(FILLED, False)
        topic.set_state(State.SYNCING)
        await tab.until(STATE, "syncing")
        topic.set_state(State.STALE)
        await tab.until(STATE, "offline")
        assert "exchange" in await tab.value("document.getElementById('badge').title")
        topic.set_state(State.LIVE)
        await tab.until(STATE, "live")


async def test_a_slow_tab_catches_up() -> None:
    web = Web()
    topic = web.topic()
    busy = "(() => { const end = performance.now() + 3000; while (performance.now() < end); })()"
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tab.value, busy)
            for number in range(10, 310):
                for trades in (1, 2):
                    commit(topic, forming(minute(number), f"{37000 + number}.5", trades=trades))
                    await trio.lowlevel.checkpoint()
                commit(topic, candle(minute(number), f"{37000 + number}.5", trades=3))
                await trio.sleep(0.005)
        await same_as(tab, web)


async def test_another_life_is_loaded_anew() -> None:
    web = Web()
    topic = web.topic()
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        commit(topic, *minutes(40, 60), life="other", begins=True)
        await same_as(tab, web)
        await tab.until(STATE, "live")


async def test_another_symbol_and_interval_and_back_leave_no_socket() -> None:
    web = Web()
    topics = [web.topic(), web.topic(minutes(0, 19), series=ETH)]
    topics.append(web.topic([hour(number) for number in range(5)], series=BTC_HOURS))
    topics.append(web.topic([candle(T0 // 180_000 * 180_000, interval=Interval.M3)], series=BTC_THREES))
    async with shown(web) as tab:
        await tab.until(LENGTH, 10)
        await search(tab, "eth", "Enter")
        await same_as(tab, web, ETH)
        assert await tab.value("location.search") == "?symbol=ETHUSDT&interval=1m"
        await search(tab, "u", "ArrowDown", "ArrowUp", "Enter")  # of both, the first
        await same_as(tab, web)
        await tab.do(lambda page: page.click("button[value='1h']"))
        await same_as(tab, web, BTC_HOURS)
        assert await tab.value("location.search") == "?symbol=BTCUSDT&interval=1h"
        await tab.do(lambda page: page.go_back())
        await same_as(tab, web)
        for _ in range(15):
            await tab.do(lambda page: page.keyboard.press("]"))
            await tab.do(lambda page: page.keyboard.press("["))
        await tab.do(lambda page: page.click("button[value='1m']"))
        await same_as(tab, web)
        await tab.until(STATE, "live")
        assert await tab.open_sockets() == 1
        assert len(web.sockets.open) == 1
        assert sum(len(topic.subscribers) for topic in topics) == 1
    assert len(web.sockets.open) == 0


def hour(number: int) -> Candle:
    """One of the hours from the first whole one on."""
    begin = T0 // 3_600_000 * 3_600_000
    return candle(begin + number * 3_600_000, interval=Interval.H1)


async def search(tab: Tab, typed: str, *keys: str) -> None:
    await tab.do(lambda page: page.keyboard.press("/"))
    await tab.do(lambda page: page.keyboard.type(typed))
    await tab.until("document.querySelectorAll('#found:not([hidden]) [role=option]').length > 0")
    for key in keys:
        await tab.do(lambda page, key=key: page.keyboard.press(key))  # type: ignore[misc] # mypy knows no such lambda


async def test_the_search_offers_all_until_something_is_typed_and_escape_leaves_all_as_it_was() -> None:
    web = Web()
    web.topic()
    offered = "[...document.querySelectorAll('#found:not([hidden]) [role=option]')].map((item) => item.firstChild.data)"
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        await tab.do(lambda page: page.click("#symbol"))
        await tab.until(offered, ["BTCUSDT", "ETHUSDT"])
        await tab.do(lambda page: page.keyboard.type("e"))
        await tab.until(offered, ["ETHUSDT"])
        await tab.do(lambda page: page.keyboard.press("Escape"))
        await tab.until(offered, [])
        assert await tab.value("document.getElementById('symbol').value") == "BTCUSDT"
        assert await tab.value("candlesync.feed.symbol") == "BTCUSDT"


async def test_only_the_intervals_of_the_venue_are_offered() -> None:
    web = Web(venue=USDM)
    web.topic()
    offered = "[...document.getElementById('intervals').children].map(({ value }) => value)"
    checked = "document.querySelector('#intervals [aria-checked=true]').value"
    async with shown(web) as tab:
        await tab.until(offered, [str(interval) for interval in USDM.intervals])
        await tab.until(checked, "1m")
        await tab.value("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '[', bubbles: true }))")
        assert await tab.value(checked) == "1m", "there is no shorter one"


async def test_a_symbol_that_is_not_listed_is_said() -> None:
    web = Web()
    web.topic()
    refused = "Failed to load resource: the server responded with a status of 404 ()"
    async with shown(web, "/?symbol=nope", console=[refused]) as tab:
        await tab.until(STATE, "offline")
        assert "NOPE" in await tab.value(text("message"))
        await search(tab, "btc", "Enter")
        await tab.until(STATE, "live")
        assert await tab.value("document.getElementById('message').hidden")


async def test_an_address_with_what_can_be_no_symbol_says_so() -> None:
    web = Web()
    web.topic()
    refused = "Failed to load resource: the server responded with a status of 404 ()"
    async with shown(web, "/?symbol=BTC/USDT", console=[refused, refused]) as tab:
        await tab.until(f"{text('message')}.includes('BTC/USDT')")
        for symbol, said in (("..", "no symbol ..,"), (" ", "")):
            path = tab.page.url.partition("?")[0] + "?" + urlencode({"symbol": symbol})
            await tab.do(lambda page, path=path: page.goto(path))  # type: ignore[misc] # mypy knows no such lambda
            await tab.until(f"{text('message')}.includes({said!r})")
        await tab.until(STATE, "live")


async def test_a_symbol_that_was_refused_can_be_chosen_again() -> None:
    web = Web()
    refused = "Failed to load resource: the server responded with a status of 404 ()"
    async with shown(web, "/?symbol=nope", console=[refused, refused]) as tab:
        await tab.until(STATE, "offline")
        assert tab.console == [refused]
        await tab.do(lambda page: page.focus("#symbol"))
        await tab.do(lambda page: page.keyboard.press("Enter"))
        with trio.fail_after(PATIENCE):
            while len(tab.console) < 2:
                await tab.value("0")
        await tab.until(STATE, "offline")


async def test_a_server_that_wants_a_token() -> None:
    web = Web(access=AccessSettings(tokens=(Token("sesame"),)))
    web.topic()
    web.topic([hour(number) for number in range(5)], series=BTC_HOURS)
    async with shown(web, "/?token=sesame") as tab:
        await tab.until(STATE, "live")
        await tab.until(LENGTH, 10)
        await search(tab, "eth", "Escape")
        await tab.do(lambda page: page.click("button[value='1h']"))
        await tab.until(LENGTH, 5)
        assert await tab.value("location.search") == "?token=sesame&symbol=BTCUSDT&interval=1h"


async def test_light_and_dark() -> None:
    web = Web()
    web.topic()
    async with shown(web, color_scheme="dark") as tab:
        await tab.until(STATE, "live")
        ground = "getComputedStyle(document.body).backgroundColor"
        assert await tab.value(ground) == "rgb(17, 21, 27)"
        await tab.until(pixels(17, 21, 27))
        await tab.do(lambda page: page.keyboard.press("t"))
        assert await tab.value(ground) == "rgb(255, 255, 255)"
        await tab.until(pixels(255, 255, 255))
        await tab.do(lambda page: page.reload())
        await tab.until(STATE, "live")
        assert await tab.value(ground) == "rgb(255, 255, 255)", "it is remembered"


async def test_how_old_the_newest_candle_is() -> None:
    web = Web(klines=Exchange(-1_500, 400))
    topic = web.topic(minutes(0, 400))
    async with shown(web, "/?symbol=BTCUSDT") as tab:
        await tab.until(STATE, "live")
        await tab.until(LENGTH, 401)
        assert await tab.value(text("age")) == "", "it may have stood there for hours"
        commit(topic, candle(minute(401)))
        await tab.until(f"{text('age')}.endsWith(' ago')")
        since = await tab.value("performance.now()")
        await tab.do(lambda page: page.focus("#chart"))
        while await tab.value(LENGTH) < 1_902:
            await tab.do(lambda page: page.keyboard.press("PageUp"))
        await tab.until(f"performance.now() - {since} > 2500")
        await tab.until(f"['2 s ago', '3 s ago', '4 s ago'].includes({text('age')})")  # older ones did not change it
        told = await tab.value("document.querySelector('[role=status]').innerText.trim()")
        assert told == "live", "a screen reader would read an age in it aloud each second"


async def test_the_change_over_long_candles_is_theirs() -> None:
    web = Web()
    for interval, begin in (("1d", MONDAY), ("1w", MONDAY), ("1M", JUNE)):
        series = Series("BTCUSDT", Interval(interval))
        web.topic([candle(begin, "37500", interval=series.interval)], series=series)
    async with shown(web, "/?interval=1d") as tab:
        await tab.until(text("change"), "+1.35 % in 24 h")
        await tab.do(lambda page: page.click("button[value='1w']"))
        await tab.until(text("change"), "+1.35 % in 7 d")
        await tab.do(lambda page: page.click("button[value='1M']"))
        await tab.until(text("change"), "+1.35 % in 30 d")


JUNE, MONDAY = 1_717_200_000_000, 1_717_372_800_000  # 2024-06-01 and 2024-06-03


async def test_older_history_stays_when_the_server_begins_again_and_can_be_loaded_again_when_not() -> None:
    web = Web(klines=Exchange(-1_500, 400))
    topic = web.topic(minutes(0, 400))
    oldest = "candlesync.feed.candles[0].time"
    seen = "candlesync.chart.timeScale().getVisibleRange().from"
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        await tab.do(lambda page: page.focus("#chart"))

        async def scroll_to_the_beginning() -> None:
            with trio.fail_after(PATIENCE):
                while await tab.value(oldest) != minute(-1_500) // 1000:
                    await tab.do(lambda page: page.keyboard.press("PageUp"))
                    await trio.sleep(0.03)

        await scroll_to_the_beginning()
        await trio.sleep(0.5)
        looked_at = await tab.value(seen)
        commit(topic, *minutes(0, 405), life="other", begins=True)
        await tab.until("candlesync.feed.candles.at(-1).time", minute(405) // 1000)
        assert (await tab.value(oldest), await tab.value(seen)) == (minute(-1_500) // 1000, looked_at)
        commit(topic, candle(minute(0), "36999"), *minutes(1, 406), life="third", begins=True)
        await tab.until("candlesync.feed.candles.at(-1).time", minute(406) // 1000)
        await scroll_to_the_beginning()


async def test_brackets_that_are_typed_with_alt_gr_change_the_interval() -> None:
    web = Web()
    web.topic()
    web.topic([candle(T0 // 180_000 * 180_000, interval=Interval.M3)], series=BTC_THREES)
    press = "document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{}', bubbles: true, {} }}))"
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        await tab.value(press.format("]", "ctrlKey: true, altKey: true"))
        assert await tab.value("candlesync.feed.interval") == "1m", "a shortcut of somebody else's"
        await tab.value(press.format("]", "ctrlKey: true, altKey: true, modifierAltGraph: true"))
        await tab.until(LENGTH, 1)
        assert await tab.value("candlesync.feed.interval") == "3m"


async def test_no_state_moves_the_chart() -> None:
    web = Web()
    topic = web.topic(minutes(0, 300))
    place = "document.getElementById('chart').getBoundingClientRect().top"
    async with shown(web) as tab:
        for width in (390, 1280):
            await tab.do(lambda page, width=width: page.set_viewport_size({"width": width, "height": 800}))  # type: ignore[misc] # mypy knows no such lambda
            topic.set_state(State.LIVE)
            await tab.until(STATE, "live")
            top = await tab.value(place)
            topic.set_state(State.STALE)
            await tab.until(STATE, "offline")
            await tab.value("document.getElementById('age').textContent = '59 min ago'")
            assert await tab.value(place) == top


@pytest.mark.parametrize("size", [(360, 640), (390, 844), (844, 390), (1280, 800)])
async def test_it_fits(size: tuple[int, int]) -> None:
    width, height = size
    web = Web()
    web.topic(minutes(0, 300))
    is_mobile = width < 1000
    async with shown(web, viewport={"width": width, "height": height}, has_touch=is_mobile, is_mobile=is_mobile) as tab:
        await tab.until(STATE, "live")
        root = "document.documentElement"
        assert await tab.value(f"[{root}.scrollWidth <= {width}, {root}.scrollHeight <= {height}]") == [True, True]
        chart = await tab.value("document.getElementById('chart').getBoundingClientRect().height")
        assert chart > 0.5 * height
        assert "TradingView" in await tab.value("document.querySelector('footer').innerText")
        assert await tab.value("document.getElementById('tv-attr-logo') !== null")


async def test_the_keyboard_moves_and_zooms_the_chart() -> None:
    web = Web()
    web.topic(minutes(0, 600))
    seen = "candlesync.chart.timeScale().getVisibleLogicalRange()"
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        await tab.do(lambda page: page.focus("#chart"))
        first = await tab.value(seen)
        await tab.do(lambda page: page.keyboard.press("PageUp"))
        await tab.until(f"{seen}.to < {first['to']}")
        await tab.until("document.getElementById('newest').hidden", False)
        moved = await tab.value(seen)
        await tab.do(lambda page: page.keyboard.press("+"))
        await tab.until(f"{seen}.to - {seen}.from < {moved['to'] - moved['from']}")
        await tab.do(lambda page: page.click("#newest"))
        await tab.until("document.getElementById('newest').hidden", True)


async def test_scrolling_back_loads_older_history_to_the_first_candle() -> None:
    web = Web(klines=Exchange(-1_500, 400, missing=range(-500, -480)))
    topic = web.topic(minutes(0, 400))
    async with shown(web) as tab:
        await tab.until(STATE, "live")
        await tab.do(lambda page: page.focus("#chart"))
        with trio.fail_after(PATIENCE):
            while await tab.value(LENGTH) < 1_901:
                await tab.do(lambda page: page.keyboard.press("PageUp"))
                await trio.sleep(0.03)
        times = [minute(number) // 1000 for number in range(-1_500, 401)]
        assert await tab.value("candlesync.feed.candles.map(({ time }) => time)") == times
        await tab.until("candlesync.candles.data().map(({ time }) => time)", times)
        filled = "candlesync.feed.candles.filter(({ filled }) => filled).length"
        assert await tab.value(filled) == 20
        for _ in range(5):
            await tab.do(lambda page: page.keyboard.press("PageUp"))
        commit(topic, candle(minute(401)))
        await tab.until(LENGTH, 1_902)
        assert await tab.value(STATE) == "live"


async def test_the_legend_is_of_the_candle_under_the_crosshair() -> None:
    web = Web()
    web.topic([*minutes(0, 7), flat(minute(8)), *minutes(9, 20)])
    async with shown(web) as tab:
        await same_as(tab, web)
        place = await tab.value(f"candlesync.chart.timeScale().timeToCoordinate({minute(8) // 1000})")
        box = await tab.do(lambda page: page.locator("#chart").bounding_box())
        assert box is not None
        await tab.do(lambda page: page.mouse.move(box["x"] + place, box["y"] + 200))
        await tab.until(f"{text('legend')}.includes('2023-11-14 22:22')")
        assert "the exchange had an outage" in await tab.value(text("legend"))


async def test_the_front_end_of_the_readme_draws_on_a_page_of_another_origin() -> None:
    text = README.read_text(encoding="utf-8")
    front_end = text.partition("```html\n")[2].partition("```")[0]
    assert 5 < front_end.count("\n") <= 15
    assert "127.0.0.1:8000" in front_end
    web = Web()
    web.topic([*minutes(0, 300), candle(minute(301), "36950.5")])
    async with on_a_port(web) as port, chromium() as browser, trio.open_nursery() as nursery:
        body = front_end.replace("127.0.0.1:8000", f"127.0.0.1:{port.number}").encode()

        async def serve(stream: trio.SocketStream) -> None:
            await stream.receive_some()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n"
            await stream.send_all(f"{head}Connection: close\r\n\r\n".encode() + body)

        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with browser.tab(f"127.0.0.1:{listener.socket.getsockname()[1]}") as tab:
            await tab.until(
                """[...document.querySelectorAll("canvas")].some((canvas) => {
                    const pen = new OffscreenCanvas(1000, 1000).getContext("2d");
                    pen.drawImage(canvas, 0, 0);
                    const { data } = pen.getImageData(0, 0, 1000, 1000);
                    let count = 0;
                    for (let at = 0; at < data.length; at += 4) count += data[at] === 0x26 && data[at + 1] === 0xa6;
                    return count > 500;
                })"""
            )
            assert [said for said in tab.console if "favicon" not in said] == []
            assert {url.split("/")[2] for url in tab.foreign} == {f"127.0.0.1:{port.number}"}
        nursery.cancel_scope.cancel()
