"""A real browser: Debian's chromium, driven by playwright from a thread of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar, cast

import pytest
import trio
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, WebSocket, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
assert CHROMIUM.exists() or os.environ.get("CI") != "true", "no chromium: .ci/run installs it"

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason="no chromium (Debian: apt-get install chromium)")

PATIENCE = 60.0
"""Seconds to wait for what takes a moment, where the moment is not what is tested."""

_T = TypeVar("_T")


class Tab:
    """A page in the browser, and what it does beside what is seen."""

    def __init__(self, driver: Driver, page: Page, host: str) -> None:
        self._driver = driver
        self.page = page
        """For use in `do` alone."""
        self._host = host
        self.console: list[str] = []
        """All that the page or the browser said there."""
        self.foreign: list[str] = []
        """Requests to other hosts."""
        self.sockets: list[WebSocket] = []
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.console.append(str(error)))
        page.on("request", self._note_request)
        page.on("websocket", self._note_socket)

    def _note_console(self, message: ConsoleMessage) -> None:
        self.console.append(message.text)

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith((f"http://{self._host}/", "blob:", "data:")):
            self.foreign.append(request.url)

    def _note_socket(self, socket: WebSocket) -> None:
        self.sockets.append(socket)

    async def do(self, act: Callable[[Page], _T]) -> _T:
        """Do something with the page."""
        return await self._driver.do(lambda _browser: act(self.page))

    async def value(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return await self.do(lambda page: page.evaluate(expression))

    async def until(self, expression: str, expected: object = True) -> None:
        """Wait until a JavaScript expression has a value."""
        value = None
        with trio.move_on_after(PATIENCE):
            while (value := await self.value(expression)) != expected:  # noqa: ASYNC110 - the page tells nobody
                await trio.sleep(0.03)
        assert value == expected, f"{expression} is {value!r}; console: {self.console}"

    async def open_sockets(self) -> int:
        """How many WebSockets it has open."""
        return await self.do(lambda _page: sum(not socket.is_closed() for socket in self.sockets))


class Driver:
    """Has things done in the browser's thread, in turn."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[Callable[[Browser], None] | None] = SimpleQueue()
        self._token = trio.lowlevel.current_trio_token()

    async def do(self, act: Callable[[Browser], _T]) -> _T:
        """The result of ``act``, or what it raised."""
        done = trio.Event()
        results: list[_T | Exception] = []

        def job(browser: Browser) -> None:
            try:
                results.append(act(browser))
            except Exception as error:  # noqa: BLE001 - raised again below, where it is waited for
                results.append(error)
            finally:
                self._token.run_sync_soon(done.set)

        self.jobs.put(job)
        await done.wait()
        if isinstance(results[0], Exception):
            raise results[0]
        return results[0]

    @asynccontextmanager
    async def tab(self, host: str, path: str = "/", **context: Any) -> AsyncIterator[Tab]:
        """Open a page of a server; ``context`` as playwright's ``new_context`` takes it."""
        opened = await self.do(lambda browser: browser.new_context(**context))
        await self.do(lambda _browser: opened.set_default_timeout(1000 * PATIENCE))
        tab = Tab(self, await self.do(lambda _browser: opened.new_page()), host)
        try:
            await tab.do(lambda page: page.goto(f"http://{host}{path}"))
            yield tab
        finally:
            with trio.CancelScope(shield=True):  # the thread ends, whatever it does: playwright gives it a while
                await self.do(lambda _browser: opened.close())


@asynccontextmanager
async def chromium() -> AsyncIterator[Driver]:
    """A browser for as long as the block lasts."""
    driver = Driver()

    def run() -> None:
        with sync_playwright() as playwright, _launched(playwright.chromium) as browser:
            while (job := driver.jobs.get()) is not None:
                job(browser)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, run)
        try:
            yield driver
        finally:
            driver.jobs.put(None)


@contextmanager
def _launched(kind: Any) -> Iterator[Browser]:
    browser = cast("Browser", kind.launch(executable_path=CHROMIUM))
    try:
        yield browser
    finally:
        browser.close()
