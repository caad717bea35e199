"""Clients of the service, each with the habits of a kind of program that people write.

All do what the contract tells a client to do: resume with the position, load again on ``too_old``, come back later when
they are told to. What they are sent goes into their views, which check it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any
from urllib.parse import urlencode

import trio

from candlesync.core.candle import Series

from .peer import Closed, Peer, ask, open_peer
from .view import View, read
from .watch import Watch

BEFORE_AGAIN = 1.0
"""Seconds before a client comes back; a refused one waits longer and longer, to the cap."""
AGAIN_CAP = 60.0
REFUSALS = {429, 503}
"""Statuses that a client is to be refused with: it comes back later."""
ENDS = {1000, 1001, 1006, 1012, 1013}
"""Close codes after which a client comes back with its position."""


class Client:
    """One client; `run` is its life."""

    def __init__(self, number: int, app: Any, watch: Watch, seed: int, series: Sequence[Series]) -> None:
        self.number = number
        self.views = {one: watch.view(f"{type(self).__name__} {number}", one) for one in series}
        self.pause_until = 0.0
        self.pause = 0.0
        """Seconds between two messages that it takes, until `pause_until`."""
        self.stuck_until = 0.0
        self.away_until = 0.0
        self.scope = trio.CancelScope()
        """Around what it does now; cancelled, it is gone without a goodbye, and comes back."""
        self.task: trio.lowlevel.Task | None = None
        """That runs it."""
        self.is_calm = False
        """Whether it stays connected from now on, and takes all that comes."""
        self._app = app
        self._watch = watch
        self._random = Random(f"client/{seed}/{number}")  # noqa: S311 - to be repeated, not to be secret
        self._again = BEFORE_AGAIN

    async def run(self) -> None:
        """Come, and come back, until cancelled."""
        self.task = trio.lowlevel.current_task()
        while True:
            with trio.CancelScope() as self.scope:
                await trio.sleep_until(self.away_until)
                closed: Closed | None = None
                try:
                    await self.visit()
                    self._again = BEFORE_AGAIN
                except Closed as error:
                    closed = error.with_traceback(None)  # of which each frame would keep the connection meanwhile
                if closed is not None:
                    await self._closed(closed)
            await trio.sleep(0.05)  # never in the same moment again

    async def visit(self) -> None:
        """Be connected once; raises `Closed`."""
        raise NotImplementedError

    def calm(self) -> None:
        """Be an ordinary client from now on: come again, and stay."""
        self.is_calm = True
        self.pause_until = self.stuck_until = self.away_until = 0.0
        self.scope.cancel()

    # --- what the kinds have in common

    async def load(self, view: View, **parameters: int) -> None:
        """Load a view over REST; raises `Closed` with the status when that is refused."""
        series = view.series
        answer = await ask(self._app, f"/candles/{series.symbol}/{series.interval}?{urlencode(parameters)}")
        self._watch.saw(view.name, "load", f"{answer.status} {answer.body!r}")
        if answer.status != 200:
            raise Closed(answer.status, answer.body.decode(), is_refusal=True)
        view.load(answer.body, answer.headers["candlesync-position"])
        if answer.headers["candlesync-state"] == "live":
            self._watch.told_live(series)

    @asynccontextmanager
    async def socket(
        self, view: View, *, with_line: bool = True, window: int = 65_536, **parameters: object
    ) -> AsyncIterator[Peer]:
        """Follow one series."""
        series = view.series
        query = urlencode({"interval": str(series.interval), **parameters})
        view.connects(with_position="position" in parameters)
        async with open_peer(
            self._app, f"/ws/candles/{series.symbol}?{query}", with_line=with_line, window=window
        ) as peer:
            yield peer

    async def take(self, peer: Peer, view: View) -> None:
        """Take one message of a socket with one series."""
        text = await self.next(peer)
        self._watch.saw(view.name, "message", text)
        view.take(read(text))

    async def next(self, peer: Peer) -> str:
        """The next message, as fast as the client is now."""
        now = trio.current_time()
        if now < self.pause_until:
            await trio.sleep(self.pause)
        if trio.current_time() < self.stuck_until:
            await trio.sleep_until(self.stuck_until)
        return await peer.receive()

    async def follow(self, view: View, *, seconds: Callable[[], float] | None = None, **how: Any) -> None:
        """Resume a view with its position for a while, or until closed; raises `Closed`."""
        with trio.move_on_after(float("inf") if seconds is None or self.is_calm else seconds()):
            async with self.socket(view, position=view.position, **how) as peer:
                while True:
                    await self.take(peer, view)

    async def _closed(self, closed: Closed) -> None:
        self._watch.saw(f"client {self.number}", "closed", f"{closed.code} {closed.reason}")
        if closed.code == 4410:
            for view in self.views.values():
                view.position = None
            return
        known = REFUSALS if closed.is_refusal else ENDS
        self._watch.verdict.expect(closed.code in known, "alive", "client {}: {}", self.number, closed)
        await trio.sleep(self._again)
        self._again = min(AGAIN_CAP, self._again * 2)


class Chart(Client):
    """Loads over REST, follows with the position, stays as long as it may, and takes things slowly at times."""

    window = 65_536

    async def visit(self) -> None:
        """See `Client`."""
        view = next(iter(self.views.values()))
        if view.position is None:
            await self.load(view)
        await self.follow(view, window=self.window)


class Roamer(Client):
    """A chart behind another server, that is put away and looked at again; it takes no frames on a line."""

    async def visit(self) -> None:
        """See `Client`."""
        view = next(iter(self.views.values()))
        if view.position is None:
            await self.load(view)
        await self.follow(view, seconds=lambda: self._random.uniform(5, 1500), with_line=False)
        await trio.sleep(self._random.uniform(0, 900))


class Slow(Chart):
    """A chart on a bad line: a few candles fit into it, and it takes one every now and then."""

    window = 700

    async def next(self, peer: Peer) -> str:
        """See `Client`."""
        if not self.is_calm:
            await trio.sleep(self._random.choice((0.0, 0.0, 3.0, 20.0)))
        return await super().next(peer)


class Many(Client):
    """All series on one socket, each with its position; takes note of the states that it is told."""

    async def visit(self) -> None:
        """See `Client`."""
        with_line = self._random.random() < 0.5
        async with open_peer(self._app, "/ws/candles", with_line=with_line) as peer:
            for view in self.views.values():
                await self._subscribe(peer, view)
            fresh = set(self.views)
            with trio.move_on_after(float("inf") if self.is_calm else self._random.uniform(300, 7200)):
                while True:
                    await self._take(peer, fresh)

    async def _subscribe(self, peer: Peer, view: View) -> None:
        if view.position is None:
            await self.load(view)
        view.connects(with_position=True)
        view.lives_told = len(self._watch.lives[view.series])
        name = {"symbol": view.series.symbol, "interval": str(view.series.interval)}
        peer.say(json.dumps({"op": "subscribe", **name, "position": view.position}))

    async def _take(self, peer: Peer, fresh: set[Series]) -> None:
        text = await self.next(peer)
        self._watch.saw(f"client {self.number}", "message", text)
        message = read(text)
        view = next(
            (
                view
                for series, view in self.views.items()
                if (series.symbol, str(series.interval)) == (message.get("symbol"), message.get("interval"))
            ),
            None,
        )
        if view is None:
            self._watch.verdict.wrong("alive", f"client {self.number}: {message}")
            return
        match message.get("op"):
            case None:
                view.take(message)
            case "state":
                if message["state"] == "live" and view.series not in fresh:
                    self._watch.told_live_after(view)
                fresh.discard(view.series)
            case "error" if message["code"] == "too_old":
                view.position = None
                fresh.add(view.series)
                await self._subscribe(peer, view)
            case "error":
                self._watch.verdict.expect(
                    message["code"] == "upstream_unavailable", "alive", "client {}: {}", self.number, message
                )
                raise Closed(1006)


class Since(Client):
    """A bot: asks for all from its newest candle on, or for the last few, and never for a position."""

    async def visit(self) -> None:
        """See `Client`."""
        view = next(iter(self.views.values()))
        if not view.candles or view.position is None:
            await self.load(view, limit=self._random.choice((1, 50, 1000)))
        how: dict[str, Any] = {"since": view.newest // 1000}
        if self._random.random() < 0.2:
            view.candles.clear()
            how = {"replay": self._random.choice((1, 5, 1000))}
        with trio.move_on_after(float("inf") if self.is_calm else self._random.uniform(60, 3000)):
            async with self.socket(view, **how) as peer:
                while True:
                    await self.take(peer, view)
        await trio.sleep(self._random.uniform(0, 300))


class Poller(Client):
    """Knows no WebSockets: asks REST again and again."""

    async def visit(self) -> None:
        """See `Client`."""
        for view in self.views.values():
            await self.load(view, limit=self._random.choice((2, 10, 10, 200)))
            await trio.sleep(self._random.uniform(5, 60))


KINDS: tuple[type[Client], ...] = (Chart, Roamer, Slow, Many, Since, Poller)
