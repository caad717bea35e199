"""A client of Binance's streams, over a connection that takes what the test lets it take."""

from __future__ import annotations

import json
from typing import Any

import trio

from candlesync.doors.binance.departures import Departures
from candlesync.doors.binance.session import Means, StreamSession
from candlesync.doors.binance.stream import Texts
from candlesync.web.base import Channel, Closing
from tests.builders import BTC, minute
from tests.pipe import Pipe, messages_of
from tests.web.builders import Web


def told(events: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    """The minutes of raw events, and whether they are closed."""
    return [((event["k"]["t"] - minute(0)) // 60_000, event["k"]["x"]) for event in events]


class Bot:
    """A session over a `Pipe`, again and again."""

    def __init__(self, web: Web, means: Means | None = None) -> None:
        self.means = means or Means(web.supervisor, Departures(), Texts(lambda: 0), 5)
        """Of the server: another bot may have the same."""
        self.connect()

    def connect(self) -> None:
        self.pipe = Pipe()
        self.to_session, receive = trio.open_memory_channel[str](10)
        self.session = StreamSession(
            Channel(receive.receive, _no_send, self.pipe), self.means, ("", b""), combined=False
        )
        self.closing: Closing | None = None

    async def run(self) -> None:
        await self.session.begin([BTC])
        self.closing = await self.session.run()

    @property
    def got(self) -> list[tuple[int, bool]]:
        return told([json.loads(message) for message in messages_of(self.pipe.got)[0]])


async def _no_send(_message: str) -> None:
    raise AssertionError("the line is there to be written to")


def alike(web: Web, count: int) -> list[Bot]:
    """Bots of one server, which cannot tell them apart."""
    first = Bot(web)
    return [first, *(Bot(web, first.means) for _ in range(count - 1))]
