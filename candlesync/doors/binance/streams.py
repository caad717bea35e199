"""The routes of Binance's market streams: ``/binance/ws`` and ``/binance/stream``; those of futures are below
``/binance/market`` too, where their clients look for candles since 2026-04.

What a URL asks for and cannot have is refused before the upgrade, in the form of Binance's errors. Clients of Binance
come back by themselves when a connection ends, some for ever and without a pause: to one whose upgrade succeeds, a
close looks like a broken network. An HTTP status it takes for what it is, and many show the body, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from urllib.parse import urlsplit

from quart import Blueprint, Response, websocket

from candlesync.binance.public import PublicApi
from candlesync.binance.public_paths import public_api
from candlesync.binance.venue import Venue
from candlesync.doors.binance.departures import Departures
from candlesync.doors.binance.errors import bad_request, refusal_of
from candlesync.doors.binance.parameters import wants_microseconds
from candlesync.doors.binance.requests import read_target
from candlesync.doors.binance.session import Means, StreamSession
from candlesync.doors.binance.shared_departures import SharedDepartures
from candlesync.doors.binance.stream import Texts
from candlesync.errors import CandlesyncError
from candlesync.supervisor import Supervisor, asked_by
from candlesync.web.base import Channel, Session
from candlesync.web.live import Sockets

API = "binance"
"""What these are among all WebSockets."""

_TELLING = (
    *("User-Agent", "Origin", "Accept-Encoding", "Accept-Language", "Cache-Control", "Pragma"),
    *("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol"),
)
"""Headers in which programs differ, and no two connections of one do; several send no ``User-Agent``. Others are not
looked at: a proxy may give each request a number."""


def stream_routes(
    venue: Venue,
    supervisor: Supervisor,
    sockets: Sockets,
    departures: Departures,
    shared: SharedDepartures | None = None,
) -> Blueprint:
    """The routes as ``venue`` has them; their connections are among the open ``sockets``.

    ``shared`` is what all nodes of a shared store know of ``departures``; whoever owns it runs it.
    """
    texts, in_microseconds = Texts(_clock), Texts(_clock, in_microseconds=True)
    means = Means(supervisor, departures, texts, venue.messages_per_second, shared=shared)
    api = public_api(venue)
    routes = Blueprint("binance_streams", __name__)

    async def serve(names: Iterable[str], *, combined: bool) -> Response | None:
        async def open_session(channel: Channel) -> Session:
            wants = _wants_microseconds(websocket.args.getlist("timeUnit"), api)
            asked = replace(means, texts=in_microseconds) if wants else means
            session = StreamSession(channel, asked, (asked_by.get(), _program()), combined=combined)
            await session.begin(read_target(names))
            return session

        return await sockets.serve(API, open_session, _refused)

    async def raw(names: str = "") -> Response | None:
        return await serve(names.split("/"), combined=False)

    async def combined(names: str = "") -> Response | None:
        asked = [names, *websocket.args.getlist("streams")]
        return await serve("/".join(asked).split("/"), combined=True)

    for path in dict.fromkeys(("", *(urlsplit(url).path for url in venue.stream_urls))):
        for name, view in (("ws", raw), ("stream", combined)):
            for rest in ("", "/<path:names>"):
                routes.add_websocket(f"/binance{path}/{name}{rest}", f"{path}/{name}{rest}", view)
    return routes


def _program() -> bytes:
    """What tells the program of this request, and its connection, from others."""
    told = (f"{name}:{websocket.headers.get(name)}" for name in _TELLING)
    return blake2b("\n".join((websocket.full_path, *told)).encode(), digest_size=16).digest()


def _clock() -> int:
    return time.time_ns() // 1_000_000


def _wants_microseconds(units: list[str], api: PublicApi) -> bool:
    wanted = wants_microseconds(units)
    if wanted and not api.has_microseconds:
        raise bad_request(-1130, "Data sent for parameter 'timeUnit' is not valid; served are milliseconds.")
    return wanted


async def _refused(error: CandlesyncError) -> Response | None:
    refusal = refusal_of(error)
    response = Response(refusal.body, status=refusal.status, mimetype="application/json")
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response
