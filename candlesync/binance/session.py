"""One connection to Binance, from the attempt to make it to its end.

Invariant 8: the loop that receives frames never waits for the store or REST. Here it waits for nothing but the next
frame: whose connection it is, is told synchronously, and all else that waits (pings, subscriptions) is a task of its
own.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from contextlib import suppress
from typing import Never, Protocol

import trio
import trio_websocket

from candlesync.binance.pace import SlidingWindow
from candlesync.binance.parse import Acknowledgement, Kline, ServerShutdown, parse_frame
from candlesync.binance.stream import Failure, Request, Roster, StreamSettings, combined_url, failure_of
from candlesync.core.candle import Series
from candlesync.errors import UnreadableFrame
from candlesync.websocket import ENDS, Connect, Connection


class Owner(Protocol):
    """Whose connection it is. Its methods are called synchronously, and never wait."""

    wanted: set[Series]
    changed: trio.Event
    """Set, and replaced, when what is wanted has changed."""
    telling: bool
    """Whether a sink is being called; still so after it raised: then no error is taken for the connection's."""
    counts: Counter[str]

    def session_opened(self, session: Session) -> None:
        """It is connected."""

    def session_carries(self, session: Session) -> None:
        """What it carries may have changed."""

    def session_shows(self, session: Session, frame: Kline) -> None:
        """Binance has sent a candle."""

    def session_refuses(self, message: str | bytes, error: str) -> None:
        """Binance has sent what it does not document."""

    def session_ended(self, session: Session) -> None:
        """Nothing comes of it any more."""


class Session:
    """One attempt at a connection, and the connection if it comes to that. The first reason for its end stands."""

    def __init__(
        self, owner: Owner, settings: StreamSettings, connect: Connect, url: str, *, url_streams: int | None
    ) -> None:
        """``url`` as `Hosts` has it; ``url_streams`` of all that is wanted stand in it at most, the others are asked
        for afterwards."""
        self.url = url
        self.roster = Roster(owner.wanted)
        self.scope = trio.CancelScope(deadline=trio.current_time() + settings.connect_timeout)
        """Around all of it. The deadline is for connecting, and is lifted then."""
        self.opened: float | None = None
        """When it was connected, on trio's clock."""
        self.open = trio.Event()
        self.leaving = trio.Event()
        """Set when Binance has said that it is about to end the connection."""
        self.ended = trio.Event()
        self.candles = 0
        """Of series that are live."""
        self.failure: Failure | None = None
        """Why it has ended; `None` when it was stopped from outside."""
        self.heir: Session | None = None
        """What leads after it, if that was there before its end."""
        self.at_once = False
        """Whether a settled connection is followed by the next without a pause: it was not the network's fault."""
        self.exchange: _Exchange | None = None
        """The request that awaits its acknowledgement."""
        self._owner = owner
        self._settings = settings
        self._connect = connect
        self._url_streams = url_streams
        self._ids = itertools.count(1)
        self._connection: Connection | None = None

    @property
    def lasted(self) -> float:
        """Seconds since it was connected; 0 when it never was."""
        return 0.0 if self.opened is None else trio.current_time() - self.opened

    @property
    def is_settled(self) -> bool:
        """Whether it has been of use: it has lasted, and brought candles."""
        return self.candles > 0 and self.lasted >= self._settings.settled_after

    def end(self, failure: Failure, *, at_once: bool = False) -> None:
        """End it; `ended` says when that has happened."""
        if self.failure is None:
            self.failure = failure
            self.at_once = at_once
        self.scope.cancel()

    async def answers(self) -> bool:
        """Whether a ping is answered in time. If so, all that Binance had sent before it saw the ping is here."""
        connection = self._connection
        with trio.move_on_after(self._settings.ping_timeout), suppress(trio_websocket.ConnectionClosed):
            if connection is not None:
                await connection.ping()
                return True
        return False

    async def run(self) -> None:
        """Connect, and stay connected until it ends. Raises only what the owner's sink raises."""
        settings = self._settings
        series = self.roster.connect(self._url_streams)
        try:
            with self.scope:
                async with self._connect(
                    combined_url(self.url, series),
                    message_queue_size=settings.message_queue_size,
                    max_message_size=settings.max_message_size,
                ) as connection:
                    self._open(connection)
                    await self._converse(connection)
            # The scope ends by itself only at its deadline.
            self.end(Failure(f"not connected within {settings.connect_timeout:g} s"))
        except* ENDS as group:
            if self._owner.telling:
                raise
            self.end(failure_of(group))
        finally:
            self._connection = None
            self._owner.session_ended(self)
            self.ended.set()

    def _open(self, connection: Connection) -> None:
        self.scope.deadline = math.inf
        self.opened = trio.current_time()
        self._connection = connection
        self._owner.session_opened(self)
        self.open.set()

    async def _converse(self, connection: Connection) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_alive, connection)
            nursery.start_soon(self._keep_subscribed, connection)
            self._owner.session_carries(self)
            await self._receive(connection)

    async def _receive(self, connection: Connection) -> Never:
        """The loop that receives frames. Raises `ConnectionClosed`, after all that came before the end is told."""
        counts, owner = self._owner.counts, self._owner
        while True:
            message = await connection.get_message()
            # No await below, in this loop: see the module.
            counts["frames"] += 1
            if isinstance(message, bytes):
                owner.session_refuses(message, "a binary frame; Binance documents text")
                continue
            try:
                frame = parse_frame(message)
            except UnreadableFrame as error:
                owner.session_refuses(message, str(error))
                continue
            if isinstance(frame, Kline):
                owner.session_shows(self, frame)
            elif isinstance(frame, Acknowledgement):
                self._acknowledged(frame)
            elif isinstance(frame, ServerShutdown):
                self.leaving.set()
            else:
                counts["unwanted"] += 1

    async def _keep_alive(self, connection: Connection) -> None:
        while True:
            await trio.sleep(self._settings.ping_interval)
            with trio.move_on_after(self._settings.ping_timeout) as scope:
                try:
                    await connection.ping()
                except trio_websocket.ConnectionClosed:
                    return  # for `_receive` to report, once it has read what came before the end
            if scope.cancelled_caught:
                self.end(Failure(f"a ping was not answered within {self._settings.ping_timeout:g} s"))

    async def _keep_subscribed(self, connection: Connection) -> None:
        """Make what the connection carries what is wanted, one request at a time."""
        window = SlidingWindow(self._settings.messages_per_second, 1.0)
        while True:
            changed = self._owner.changed
            self._owner.session_carries(self)
            request = self.roster.request(self._settings.message_bytes)
            if not self._owner.wanted:
                self.end(Failure("no series is followed"))
                return
            if request is None:
                await changed.wait()
            elif (opens := window.opens(trio.current_time())) > trio.current_time():
                await trio.sleep_until(opens)  # and ask again: what is wanted may have changed
            else:
                window.take(trio.current_time())
                await self._request(connection, request)

    async def _request(self, connection: Connection, request: Request) -> None:
        exchange = self.exchange = _Exchange(next(self._ids), request)
        self.roster.ask(request)
        with trio.move_on_after(self._settings.acknowledge_timeout) as scope:
            # A closed connection is for `_receive` to report, once it has read what came before the end.
            with suppress(trio_websocket.ConnectionClosed):
                await connection.send_message(request.text(exchange.id))
            await exchange.granted.wait()
        if scope.cancelled_caught:
            self.end(Failure(f"{request.method} was not answered within {self._settings.acknowledge_timeout:g} s"))

    def _acknowledged(self, answer: Acknowledgement) -> None:
        exchange = self.exchange
        # Binance gives no id to an error in a request that it could not read; only one is under way at a time.
        if exchange is None or answer.id not in (exchange.id, None):
            self._owner.counts["unwanted"] += 1
        elif answer.error is not None:
            self.end(Failure(f"{exchange.request.method} was refused: {answer.error}"))
        elif answer.id is not None:
            self.exchange = None
            self.roster.grant(exchange.request)
            self._owner.session_carries(self)
            exchange.granted.set()


class _Exchange:
    def __init__(self, id_: int, request: Request) -> None:
        self.id = id_
        self.request = request
        self.granted = trio.Event()
