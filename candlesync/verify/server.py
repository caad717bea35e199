"""The server's doors, as any client uses them: REST over httpx, and one WebSocket a series."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote, urlencode

import httpx
import msgspec

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.verify.findings import CannotCheck, Difference, Shown
from candlesync.verify.reading import read_candle, read_json
from candlesync.websocket import Connection, open_websocket

_PINNED = re.compile(r"^candlesync_series_live\{([^}]*)\} ", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_STATES = frozenset({"live", "syncing", "stale"})
_MOST_BYTES = 2**20
"""Of a message; a candle has some 220."""
_QUEUE = 1000


Open = Callable[[str, Sequence[tuple[bytes, bytes]]], AbstractAsyncContextManager[Connection]]
"""What opens a WebSocket as a client, from a URL and headers; see `open_socket`."""


@asynccontextmanager
async def open_socket(url: str, headers: Sequence[tuple[bytes, bytes]]) -> AsyncIterator[Connection]:
    """A WebSocket over the network; an `Open`."""
    async with open_websocket(
        url, headers=headers, message_queue_size=_QUEUE, max_message_size=_MOST_BYTES
    ) as connection:
        yield connection


class Loaded(msgspec.Struct, frozen=True):
    """An answer of ``GET /candles``."""

    candles: tuple[Shown, ...]
    position: str
    """Empty when the answer does not say."""
    state: str
    differences: tuple[Difference, ...]


class Server:
    """Asks one server. Each method raises `CannotCheck` when it cannot be asked, or is no candlesync."""

    def __init__(self, client: httpx.AsyncClient, token: str = "", open_socket: Open = open_socket) -> None:
        """``client`` has the server's address as its base."""
        self._client = client
        self._token = token
        self._open = open_socket

    async def followed(self) -> list[Series]:
        """The series that the server has promised to keep: those that it says it follows from the start."""
        answer = await self._get("/metrics")
        if answer.status_code != 200 or "candlesync_symbols " not in answer.text:
            raise CannotCheck(f"{self._client.base_url} is no candlesync: /metrics answers {_said(answer)}")
        series = []
        for labels in _PINNED.findall(answer.text):
            names = dict(_LABEL.findall(labels))
            series.append(Series(names["symbol"], Interval(names["interval"])))
        return sorted(series, key=str)

    async def candles(self, series: Series) -> Loaded:
        """The newest thousand candles."""
        answer = await self._get(f"/candles/{quote(series.symbol)}/{series.interval}?limit=1000")
        if answer.status_code != 200:
            raise CannotCheck(f"{series} is not served: {_said(answer)}")
        objects = read_json(answer.text)
        if not isinstance(objects, list):
            raise CannotCheck(f"{self._client.base_url} is no candlesync: {_said(answer)}")
        candles = tuple(read_candle(value, series) for value in objects)
        state = answer.headers.get("Candlesync-State", "")
        position = answer.headers.get("Candlesync-Position", "")
        differences = []
        if state not in _STATES:
            differences.append(
                Difference(None, "header Candlesync-State", state or "-", "live, syncing or stale", by_contract=True)
            )
        if not position:
            differences.append(Difference(None, "header Candlesync-Position", "-", "there", by_contract=True))
        return Loaded(candles, position, state or "-", tuple(differences))

    def follow(self, series: Series, position: str) -> AbstractAsyncContextManager[Connection]:
        """The WebSocket of a series, from a position on."""
        query = {"interval": str(series.interval)} | ({"position": position} if position else {"replay": "1000"})
        base = str(self._client.base_url).rstrip("/").replace("http", "ws", 1)
        return self._open(f"{base}/ws/candles/{quote(series.symbol)}?{urlencode(query)}", self._headers())

    async def _get(self, path: str) -> httpx.Response:
        headers = [(name.decode(), value.decode()) for name, value in self._headers()]
        try:
            answer = await self._client.get(path, headers=headers)
        except httpx.HTTPError as error:
            raise CannotCheck(f"{self._client.base_url} does not answer: {error or type(error).__name__}") from error

        if answer.status_code == 401:
            raise CannotCheck(f"{self._client.base_url} asks for a token that is one of its own (--token)")
        return answer

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"authorization", f"Bearer {self._token}".encode())] if self._token else []


def _said(answer: httpx.Response) -> str:
    """What an answer says, in few words."""
    return f"{answer.status_code} {answer.text[:120]!r}"
