"""The WebSocket routes: ``/ws/candles/{symbol}`` and ``/ws/candles``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

from quart import Blueprint, Response, websocket

from candlesync.core.allowance import Pace
from candlesync.errors import CandlesyncError
from candlesync.hub import HeardLine
from candlesync.supervisor import Supervisor
from candlesync.web.base import GOING_DOWN, Channel, Session
from candlesync.web.bundle import Turn
from candlesync.web.parameters import read_series, read_start
from candlesync.web.refusal import Refusal, refusal_of
from candlesync.web.session import ManySeries, OneSeries
from candlesync.web.stopping import Stopping
from candlesync.web.subscription import follow

LINE = "candlesync.line"
"""The ASGI extension with which a server of ours offers the connection itself."""

OpenSession = Callable[[Channel], Awaitable[Session]]
Refused = Callable[[CandlesyncError], Awaitable[Response | None]]


class Sockets:
    """The open sockets of this process."""

    def __init__(self, supervisor: Supervisor, stopping: Stopping, max_subscriptions: int, message_rate: float) -> None:
        """``message_rate`` is how many messages a second a client may send; 0 is no limit."""
        self._supervisor = supervisor
        self._stopping = stopping
        self._max_subscriptions = max_subscriptions
        self._message_rate = message_rate
        # At once: all subscriptions, given up and made again, or some seconds' worth.
        self._message_burst = max(2.0 * max_subscriptions, 20.0 * message_rate)
        self.turn = Turn()
        """Its task sends what sockets of many series are sent together; whoever owns this runs it."""
        self.open: set[Session] = set()
        self.messages_sent = 0
        """By sockets that are closed."""
        self.messages_refused = 0
        """The same."""
        self.opened = Counter[str]()
        """How many there have been, by API."""
        self.refused = Counter[str]()
        """How many could not be opened, by API."""
        self.ended = Counter[str]()
        """How many sockets this server has ended, by reason."""
        stopping.on_set(self._say_goodbye)

    def routes(self) -> Blueprint:
        """The routes."""
        routes = Blueprint("live", __name__)

        @routes.websocket("/ws/candles/<symbol>")
        async def one(symbol: str) -> Response | None:
            async def open_session(channel: Channel) -> Session:
                intervals = websocket.args.getlist("interval")
                if len(intervals) > 1:
                    raise Refusal("bad_parameter", "interval is given more than once")
                series = read_series(symbol, intervals[0] if intervals else "1m")
                start = read_start(websocket.args.to_dict(flat=False))
                topic = await follow(self._supervisor, series, start)
                return OneSeries(channel, topic, start)

            return await self._serve(open_session)

        @routes.websocket("/ws/candles")
        async def many() -> Response | None:
            async def open_session(channel: Channel) -> Session:
                return ManySeries(channel, self.turn, self._supervisor, self._max_subscriptions)

            return await self._serve(open_session)

        return routes

    async def serve(self, api: str, open_session: OpenSession, refused: Refused) -> Response | None:
        """Serve the WebSocket of this request as one of the open sockets, to its end.

        It counts to an ``api``. ``open_session`` may raise what a client can be told, which ``refused`` then tells: by
        the answer that it gives, or after having accepted the socket.
        """
        try:
            if self._stopping.is_set():
                raise Refusal("going_down", "the server is going down; come back in a moment", retry_after=1)
            line = cast("HeardLine | None", websocket.scope.get("extensions", {}).get(LINE))
            session = await open_session(Channel(websocket.receive, websocket.send, line))
        except CandlesyncError as error:
            self.refused[api] += 1
            return await refused(error)
        self.opened[api] += 1
        self.open.add(session)
        if self._stopping.is_set():  # since it was asked above
            session.close(GOING_DOWN)
        try:
            await websocket.accept()
            closing = await session.run()
            self.ended[closing.counted_as or closing.reason] += 1
            await websocket.close(closing.code, closing.reason)
        finally:
            session.end()  # it may not have come to run
            self.open.discard(session)
            self.messages_sent += session.sent
            self.messages_refused += session.refused
        return None

    async def _serve(self, open_session: OpenSession) -> Response | None:
        async def open_with_pace(channel: Channel) -> Session:
            session = await open_session(channel)
            session.pace = Pace(self._message_rate, self._message_burst)
            return session

        return await self.serve("candles", open_with_pace, _refused)

    def _say_goodbye(self) -> None:
        for session in self.open:
            session.close(GOING_DOWN)


async def _refused(error: CandlesyncError) -> Response | None:
    refusal = refusal_of(error)
    if refusal.is_before_upgrade:
        return refuse(refusal)
    # Browsers hide the status of a refused upgrade: only an open socket can say what was wrong.
    await websocket.accept()
    await websocket.close(refusal.close_code, refusal.code)
    return None


def refuse(refusal: Refusal) -> Response:
    """The HTTP answer of a refusal."""
    response = Response(refusal.body, status=refusal.status, mimetype="application/json")
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response
