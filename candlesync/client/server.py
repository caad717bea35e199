"""A candlesync server as its client sees it: one REST question and one WebSocket."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote, urlencode, urlsplit

import httpx
import msgspec
import trio
import trio_websocket

from candlesync.client.candles import Candle
from candlesync.errors import FeedError
from candlesync.websocket import ENDS, Connection, leaves_of, open_websocket

LOAD_TIMEOUT: Final = 30.0
"""Seconds; a series that nobody followed before has its backfill first."""
OPEN_TIMEOUT: Final = 15.0
"""Seconds for name lookup, TCP, TLS and handshake together, and for any one message to go out."""
_MESSAGE_QUEUE: Final = 64
_LARGEST_MESSAGE: Final = 64 * 1024
"""Bytes; a candle has about 250."""


class Broken(Exception):
    """The connection broke, or could not be made: try again."""

    def __init__(self, reason: str, *, code: int = 0) -> None:
        super().__init__(reason)
        self.code = code
        """With which the server closed it; 0 when it did not say."""


class Message(msgspec.Struct):
    """What a WebSocket message says, a candle's own fields aside."""

    op: str = ""
    """Empty: it is a candle."""
    id: int | None = None
    code: str = ""
    message: str = ""
    state: str = ""
    position: str = ""


class Talk(Protocol):
    """An open WebSocket. Each method raises `Broken`."""

    async def say(self, message: dict[str, object]) -> None:
        """Send a message."""

    async def hear(self) -> bytes:
        """The next message. Nothing is lost when waiting for it is cancelled."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What REST answered."""

    candles: list[Candle]
    position: str
    """Empty for older history."""


class Server:
    """A server at a URL. Raises `ValueError` for a URL that cannot be one."""

    def __init__(self, url: str, token: str = "") -> None:
        parts = urlsplit(url)
        # `.port` raises ValueError by itself for a port that is none.
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError(f"server URL {url!r}: http://host or https://host is needed")
        if parts.query or parts.fragment or parts.username is not None:
            raise ValueError("server URL: only the part before /candles is needed, without user or query")
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"server URL {url!r}: {error}") from error
        if not token.isascii() or not token.isprintable():
            raise ValueError("a token is made of printable ASCII characters")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Reading the certificates takes tens of milliseconds: only where there is TLS. They are the system's, and
        # there is no proxy from the environment, because both are to be the WebSocket's too.
        verify = ssl.create_default_context() if parts.scheme == "https" else False
        self._http = httpx.AsyncClient(verify=verify, trust_env=False, timeout=LOAD_TIMEOUT)

    async def aclose(self) -> None:
        """Close what REST has open."""
        await self._http.aclose()

    async def load(self, symbol: str, interval: str, **query: int) -> Answer:
        """Ask REST for candles. Raises `FeedError`; its code ``no_answer`` when there was none."""
        url = f"{self._url}/candles/{quote(symbol, safe='')}/{quote(interval, safe='')}?{urlencode(query)}"
        try:
            with trio.fail_after(LOAD_TIMEOUT):  # httpx's own begins again with each piece of an answer
                answer = await self._http.get(url, headers=self._headers)
        except (httpx.HTTPError, trio.TooSlowError) as error:
            raise FeedError("no_answer", f"{self._url} does not answer ({type(error).__name__})") from error
        if answer.status_code != 200:
            raise refusal(answer.status_code, answer.content, answer.headers.get("Retry-After", ""))
        try:
            candles = msgspec.json.decode(answer.content, type=list[Candle])
        except msgspec.DecodeError as error:
            raise FeedError("bad_answer", f"{self._url} is no candlesync server: {error}") from error
        if any((candle.symbol, candle.interval) != (symbol, interval) for candle in candles):
            raise FeedError("bad_answer", f"{self._url} gave candles of another series")
        return Answer(candles, answer.headers.get("Candlesync-Position", ""))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Talk]:
        """A WebSocket of many series, which is closed when it is left.

        Raises `Broken`, also when it breaks meanwhile, and `FeedError` for a refusal.
        """
        url = self._url.replace("http", "ws", 1) + "/ws/candles"
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        ending: list[BaseException] = []
        with trio.CancelScope(deadline=trio.current_time() + OPEN_TIMEOUT) as opening:
            try:
                async with open_websocket(
                    url, message_queue_size=_MESSAGE_QUEUE, max_message_size=_LARGEST_MESSAGE, headers=headers
                ) as socket:
                    opening.deadline = float("inf")
                    try:
                        yield _Socket(socket)
                    except Exception as error:  # noqa: BLE001 - raised again, out of trio-websocket's nursery
                        ending.append(error)
            except* ENDS as group:
                # What the block itself raised says more than what came of it.
                if not ending:
                    ending.append(_failure(group))
        if ending:
            raise ending[0]
        if opening.cancelled_caught:
            raise Broken("no answer to the handshake")


class _Socket:
    def __init__(self, socket: Connection) -> None:
        self._socket = socket

    async def say(self, message: dict[str, object]) -> None:
        try:
            with trio.fail_after(OPEN_TIMEOUT):
                await self._socket.send_message(json.dumps(message))
        except trio.TooSlowError:
            raise Broken("the server takes nothing") from None
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def hear(self) -> bytes:
        try:
            message = await self._socket.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from closed
        return message.encode() if isinstance(message, str) else message


def _closed(closed: trio_websocket.ConnectionClosed) -> Broken:
    if closed.reason is None or closed.reason.code == 1006:  # closed abnormally: never sent
        return Broken("the connection broke")
    if closed.reason.code == 1012:
        return Broken("the server is starting again", code=1012)
    return Broken(f"closed with {closed.reason.code} {closed.reason.reason or ''}".rstrip(), code=closed.reason.code)


def _failure(group: BaseException) -> Exception:
    leaves = list(leaves_of(group))
    for leaf in leaves:
        if isinstance(leaf, trio_websocket.ConnectionRejected):
            headers = {bytes(name).lower(): bytes(value) for name, value in leaf.headers or ()}
            return refusal(
                leaf.status_code, leaf.body or b"", headers.get(b"retry-after", b"").decode("ascii", "replace")
            )
    return Broken(str(leaves[0]) or type(leaves[0]).__name__)


class _Error(msgspec.Struct):
    code: str
    message: str


class _Refusal(msgspec.Struct):
    error: _Error


def refusal(status: int, body: bytes, retry_after: str) -> FeedError:
    """The error of an answer that is not 200."""
    wait = float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
    try:
        error = msgspec.json.decode(body, type=_Refusal).error
    except msgspec.DecodeError:
        return FeedError("bad_answer", f"the server answered {status}", retry_after=wait)
    return FeedError(error.code, error.message, retry_after=wait)
