"""The page of REST in a real browser: it shows the document, and asks the server."""

from __future__ import annotations

import json

from candlesync.web.access import AccessSettings, Token
from tests.browser import chromium, needs_chromium
from tests.web.builders import Web, on_a_port

pytestmark = needs_chromium

CANDLES = "#operations-Candles-history_candles"
SHOWN = "document.querySelectorAll('.opblock').length"
LIVE = f"{CANDLES} .live-responses-table"
ANSWERED = f"document.querySelector('{LIVE} tr.response .response-col_status')?.innerText.trim()"


async def test_a_request_is_tried_with_the_token_of_the_pages_address() -> None:
    web = Web(access=AccessSettings(tokens=(Token("secret"),)))
    web.topic()
    operations = sum(map(len, (await web.get("/openapi.json")).json["paths"].values()))
    phone = {"width": 390, "height": 844}
    async with on_a_port(web) as port, chromium() as browser:
        address = f"127.0.0.1:{port.number}"
        async with browser.tab(address, "/docs?token=secret", viewport=phone, color_scheme="dark") as tab:
            await tab.until(SHOWN, operations)
            assert await tab.value("document.documentElement.classList.contains('dark-mode')")
            await tab.do(lambda page: page.click(f"{CANDLES} .opblock-summary-control"))
            await tab.do(lambda page: page.fill(f"{CANDLES} tr[data-param-name=limit] input", "3"))
            await tab.do(lambda page: page.click(f"{CANDLES} button.execute"))
            await tab.until(ANSWERED, "200")
            body = await tab.value(f"document.querySelector('{LIVE} pre').innerText")
            assert len(json.loads(body)) == 3
            assert await tab.value("document.documentElement.scrollWidth") == phone["width"]
        assert tab.console == []
        assert tab.foreign == []
