"""One stream connection, whatever carries it: what is sent, what is answered, and when it ends."""

from __future__ import annotations

from collections import Counter, deque
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, unquote

import trio

from candlesync.simulator.commands import Subscriptions
from candlesync.simulator.faults import Deaf, FaultPlan
from candlesync.simulator.frames import Frame
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.streams import Streams
from candlesync.simulator.tally import Tally

POLICY_VIOLATION = 1008
GOING_AWAY = 1001


_OFF_BEAT = 0.0137
"""Seconds by which a ping is late: under a virtual clock it would often fall on the very instant at which a test closes
its connection, and a trio-websocket that is closing dies of a ping (`LocalProtocolError` from its reader)."""


_CLOSING_SECONDS = 10.0
"""How long a client has to take and answer a close frame."""


class ClientGone(Exception):
    """The client, or the way to it, is not there any more."""


class Transport(Protocol):
    """What carries a connection: Hypercorn's WebSocket, or one in memory."""

    async def send(self, text: str) -> None:
        """Send a message; raises `ClientGone`."""

    async def receive(self) -> str | bytes:
        """The next message of the client; raises `ClientGone`."""

    async def ping(self) -> None:
        """Send a ping and wait for its pong; raises `ClientGone`. Where the server below pings by itself, and does not
        say whether a pong came, nothing is done.
        """

    async def close(self, code: int, reason: str) -> None:
        """End the connection as a WebSocket ends; may wait for the client, until `abort`."""

    def abort(self) -> None:
        """Break the connection: the client sees it gone without a close frame."""


class Target(NamedTuple):
    """What a URL's path and query ask for."""

    names: list[str]
    """Streams."""
    combined: bool
    """Whether events are to be wrapped with the names of their streams."""
    routed: bool
    """Whether anything ever comes of it."""


def target_streams(target: str, prefix: str) -> Target:
    """What a URL asks for, where kline streams are at paths that begin with ``prefix``."""
    path, _, query = target.partition("?")
    routed = path.startswith(f"{prefix}/")
    path = path.removeprefix(prefix) if routed else path
    if path == "/stream":
        asked = parse_qs(query).get("streams", [])
        return Target([name for names in asked for name in names.split("/") if name], True, routed)
    return Target([name for name in unquote(path).split("/")[2:] if name], False, routed)


class Session:
    """One stream connection from its handshake to its end; `run` is its life."""

    def __init__(
        self,
        transport: Transport,
        target: str,
        *,
        settings: SimulatorSettings,
        streams: Streams,
        faults: FaultPlan,
        tally: Tally,
    ) -> None:
        venue = settings.of_venue
        names, combined, self._routed = target_streams(target, venue.streams)
        self._subscriptions = Subscriptions(names, combined=combined, most=settings.most_streams)
        self._transport = transport
        self._settings = settings
        self._streams = streams
        self._faults = faults
        self._tally = tally
        self._unsent: deque[str] = deque()
        self._wake = trio.Event()
        self._life = trio.CancelScope()
        self._farewell: tuple[int, str] | None = None
        rate = venue.message_rate if settings.message_rate is None else settings.message_rate
        self._heard: deque[float] = deque(maxlen=rate + 1)
        self._symbols: dict[str, None] = {}
        self._asked: Counter[str] = Counter()
        """How many streams of each symbol it asks for now."""

    @property
    def symbols(self) -> list[str]:
        """The symbols whose streams the connection has asked for."""
        return list(self._symbols)

    async def run(self) -> None:
        """Serve the client until one side ends the connection. What is to be sent ends with it."""
        try:
            with self._life:
                self._join(list(self._subscriptions.names))
                if self._subscriptions.too_many:
                    self.end(POLICY_VIOLATION, "Too many subscriptions")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send_all)
                    nursery.start_soon(self._receive_all)
                    nursery.start_soon(self._ping)
                    await trio.sleep(self._settings.connection_seconds)
                    self.end(GOING_AWAY, "The connection is too old")
        finally:
            self._leave(list(self._subscriptions.names))
        if self._farewell is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._abort_late)
                await self._transport.close(*self._farewell)
                nursery.cancel_scope.cancel()

    def offer(self, frame: Frame) -> None:
        """Send a frame as soon as the client takes it."""
        self._tally.frames += 1
        self.say(frame.combined if self._subscriptions.combined else frame.raw)

    def say(self, text: str) -> None:
        """Send a text after all that is still to be sent; a client that lets too much pile up is cut off."""
        if len(self._unsent) >= self._settings.most_unsent:
            self.abort()
            return
        self._unsent.append(text)
        self._wake.set()

    def announce(self, frame: Frame) -> None:
        """Send a frame that belongs to no stream."""
        self.say(frame.combined if self._subscriptions.combined else frame.raw)

    def end(self, code: int, reason: str = "") -> None:
        """Close the connection; what has not been sent is not sent any more."""
        self._farewell = (code, reason)
        self._life.cancel()

    def abort(self) -> None:
        """Break the connection, without a close frame."""
        self._farewell = None
        self._transport.abort()
        self._life.cancel()

    async def _abort_late(self) -> None:
        await trio.sleep(_CLOSING_SECONDS)
        self._transport.abort()

    def _join(self, names: list[str]) -> None:
        for name in names:
            symbol = self._streams.symbol(name)
            if symbol is None:
                continue
            if symbol not in self._symbols:
                self._symbols[symbol] = None
                self._tally.connections_by_symbol[symbol] += 1
            self._asked[symbol] += 1
            if self._asked[symbol] == 1:
                self._tally.joined(symbol)
            if self._routed and not self._faults.active(Deaf, symbol):
                self._streams.join(name, self)

    def _leave(self, names: list[str]) -> None:
        for name in names:
            symbol = self._streams.symbol(name)
            if symbol is None:
                continue
            self._asked[symbol] -= 1
            if not self._asked[symbol]:
                self._tally.left(symbol)
            self._streams.leave(name, self)

    async def _send_all(self) -> None:
        try:
            while True:
                while self._unsent:
                    await self._transport.send(self._unsent.popleft())
                self._wake = trio.Event()
                await self._wake.wait()
        except ClientGone:
            self._life.cancel()

    async def _receive_all(self) -> None:
        try:
            while True:
                message = await self._transport.receive()
                if self._too_fast():
                    self.end(POLICY_VIOLATION, "Too many requests")
                    return
                reply = self._subscriptions.answer(message)
                self.say(reply.text)  # before any frame of a stream that it begins
                self._join(reply.joined)
                self._leave(reply.left)
                self._tally.subscribes += bool(reply.joined)
                self._tally.unsubscribes += bool(reply.left)
        except ClientGone:
            self._life.cancel()

    def _too_fast(self) -> bool:
        """Whether the newest message was one too many within a second."""
        heard = self._heard
        heard.append(trio.current_time())
        return len(heard) == heard.maxlen and heard[-1] - heard[0] < 1.0

    async def _ping(self) -> None:
        try:
            while True:
                await trio.sleep(self._settings.ping_seconds + _OFF_BEAT)
                with trio.move_on_after(self._settings.pong_seconds) as patience:
                    await self._transport.ping()
                if patience.cancelled_caught:
                    self.abort()
        except ClientGone:
            self._life.cancel()
