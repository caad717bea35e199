"""The WebSocket routes: ``/ws/candles/{symbol}`` and ``/ws/candles``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio
from quart import Blueprint, Response, websocket

from candlesync.core.allowance import Pace
from candlesync.errors import CandlesyncError
from candlesync.supervisor import Supervisor
from candlesync.web.parameters import read_series, read_start
from candlesync.web.refusal import Refusal, refusal_of
from candlesync.web.session import ManySeries, OneSeries, Receive, Send, Session
from candlesync.web.subscription import follow


class Sockets:
    """The open sockets of this process."""

    def __init__(
        self, supervisor: Supervisor, stopping: trio.Event, max_subscriptions: int, message_rate: float
    ) -> None:
        """``message_rate`` is how many messages a second a client may send; 0 is no limit."""
        self._supervisor = supervisor
        self._stopping = stopping
        self._max_subscriptions = max_subscriptions
        self._message_rate = message_rate
        # At once: all subscriptions, given up and made again, or some seconds' worth.
        self._message_burst = max(2.0 * max_subscriptions, 20.0 * message_rate)
        self.open: set[Session] = set()
        self.messages_sent = 0
        """By sockets that are closed."""
        self.messages_refused = 0
        """The same."""

    def routes(self) -> Blueprint:
        """The routes."""
        routes = Blueprint("live", __name__)

        @routes.websocket("/ws/candles/<symbol>")
        async def one(symbol: str) -> Response | None:
            async def open_session(receive: Receive, send: Send) -> Session:
                intervals = websocket.args.getlist("interval")
                if len(intervals) > 1:
                    raise Refusal("bad_parameter", "interval is given more than once")
                series = read_series(symbol, intervals[0] if intervals else "1m")
                start = read_start(websocket.args.to_dict(flat=False))
                topic = await follow(self._supervisor, series, start)
                return OneSeries(receive, send, self._stopping, topic, start)

            return await self._serve(open_session)

        @routes.websocket("/ws/candles")
        async def many() -> Response | None:
            async def open_session(receive: Receive, send: Send) -> Session:
                return ManySeries(receive, send, self._stopping, self._supervisor, self._max_subscriptions)

            return await self._serve(open_session)

        return routes

    async def _serve(self, open_session: Callable[[Receive, Send], Awaitable[Session]]) -> Response | None:
        try:
            if self._stopping.is_set():
                raise Refusal("going_down", "the server is going down; come back in a moment", retry_after=1)
            session = await open_session(websocket.receive, websocket.send)
        except CandlesyncError as error:
            refusal = refusal_of(error)
            if refusal.is_before_upgrade:
                return refuse(refusal)
            # Browsers hide the status of a refused upgrade: only an open socket can say what was wrong.
            await websocket.accept()
            await websocket.close(refusal.close_code, refusal.code)
            return None
        session.pace = Pace(self._message_rate, self._message_burst)
        self.open.add(session)
        try:
            await websocket.accept()
            closing = await session.run()
            await websocket.close(closing.code, closing.reason)
        finally:
            self.open.discard(session)
            self.messages_sent += session.sent
            self.messages_refused += session.refused
        return None


def refuse(refusal: Refusal) -> Response:
    """The HTTP answer of a refusal."""
    response = Response(refusal.body, status=refusal.status, mimetype="application/json")
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response
