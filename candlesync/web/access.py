"""Who may ask, and how much: the layer before everything that answers, for HTTP and before a WebSocket's upgrade.

It looks, in this order, at how often the client's address asks, at the ``Origin`` of a browser's page, at the token,
and at how many WebSockets and requests of the address are under way. The client's address is the peer's, or what a
trusted proxy says (`core.address.client_of`).
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from math import inf
from re import ASCII
from re import compile as compile_pattern
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec
import structlog
import trio

from candlesync.core.address import LOOPBACK, Callers, Networks
from candlesync.core.allowance import Allowances, Places
from candlesync.supervisor import asked_by
from candlesync.web.connections import PROBES, too_many_of
from candlesync.web.page import FILES
from candlesync.web.refusal import EXPOSED, Refusal

_log = structlog.get_logger(__name__)

BURST = 10.0
"""Seconds' worth of requests that an address may send at once: all that sit behind it come back together after a
restart, each with a socket and a few loads."""
OPEN = frozenset({"/health", "/ready", "/", "/docs", "/openapi.json", *(f"/static/{name}" for name in FILES)})
"""Paths that need no token: whether the server is well, and the pages and the document, which hold no data.
``/metrics`` needs one: it tells what is followed, and Prometheus knows how to send a token."""

_API_KEY = b"x-mbx-apikey"
"""The header in which clients of Binance's API send their key."""
_TOKEN = compile_pattern(r"[A-Za-z0-9._~+/-]+=*", ASCII)
"""What may stand after ``Bearer`` (RFC 6750, section 2.1)."""


class Token(msgspec.Struct, frozen=True):
    """A secret that a client may show. Neither it nor what contains it shows it when printed."""

    text: str

    def __post_init__(self) -> None:
        """Raise `ValueError`, without the text, when clients could not send it."""
        if _TOKEN.fullmatch(self.text) is None:
            raise ValueError("a token is made of ASCII letters, digits and -._~+/, with = only at its end")

    def __repr__(self) -> str:
        return "Token(…)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("text", "…")]


class AccessSettings(msgspec.Struct, frozen=True):
    """Limits of one address: a client's, or those of all who share it, an office or a mobile network. 0 is no limit."""

    connections: int = 500
    """Connections, WebSockets and requests under way, each by itself: a chart is one, and a twentieth of all that the
    server has by default is enough for any office."""
    request_rate: float = 100.0
    """Requests a second, upgrades included: at a millisecond of CPU each, a tenth of a core."""
    unlimited: tuple[str, ...] = LOOPBACK
    """Who may do as it likes: this machine, whose clients can hurt the server in other ways, and whose proxies are
    better trusted."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses, networks and ``unix``, whose ``X-Forwarded-For`` is believed."""
    origins: tuple[str, ...] = ()
    """Of the pages that may ask; empty: all."""
    tokens: tuple[Token, ...] = ()
    """One of them is needed; empty: none is."""

    @property
    def callers(self) -> Callers:
        """How addresses are told apart; raises `ValueError` for a proxy that is no address."""
        return Callers(Networks(self.trusted_proxies), Networks(self.unlimited))


def read_origin(text: str) -> str:
    """An origin as browsers send it, or ``null``; raises `ValueError` for a text that is none."""
    if text == "null":
        return text
    parts = urlsplit(text.lower())
    default = {"http": 80, "https": 443}.get(parts.scheme)
    is_bare = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if not (text.isascii() and parts.scheme and parts.hostname and is_bare):
        raise ValueError(f"{text!r} is not a scheme, a host and perhaps a port, with nothing after them")
    # Browsers leave out the port that goes without saying.
    suffix = f":{parts.port}"
    return f"{parts.scheme}://{parts.netloc.removesuffix(suffix) if parts.port == default else parts.netloc}"


Serve = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application; Quart's, Hypercorn's and asgiref's types of one differ."""


class Access:
    """Judges requests."""

    def __init__(self, settings: AccessSettings, forms: Mapping[str, Callable[[Refusal], bytes]] | None = None) -> None:
        """``forms`` make the bodies of refusals at paths that begin with a word, such as ``/udf``, in its own form."""
        self._forms = forms or {}
        self._callers = settings.callers
        self._places = Places(inf, settings.connections or inf)
        rate = settings.request_rate
        self._rate = rate
        self._requests = Allowances(rate, max(1.0, rate * BURST))
        self._probes = Allowances(rate / 10, max(1.0, rate / 10 * BURST))
        self._origins = frozenset(origin.encode() for origin in settings.origins)
        self._tokens = tuple(token.text.encode() for token in settings.tokens)
        self._has_hinted = bool(settings.trusted_proxies)
        self.refused = Counter[str]()
        """How many were refused, by reason."""

    @property
    def has_tokens(self) -> bool:
        """Whether a token is needed."""
        return bool(self._tokens)

    @property
    def has_origins(self) -> bool:
        """Whether only pages of some origins may ask."""
        return bool(self._origins)

    def before(self, serve: Serve) -> Any:
        """The application that lets pass to ``serve`` what may pass. Nothing that answers may stand before it."""

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await serve(scope, receive, send)
                return
            key = self._key(scope)
            refusal = self._refusal(scope, key)
            if refusal is not None:
                body = self.body_of(refusal, scope["path"])
                await _answer(scope, send, refusal, body, self._cross_origin(scope))
                return
            if self._origins:
                send = _Echo(send, self._cross_origin(scope))
            asked_by.set(key)
            self._places.take(key)
            try:
                await serve(scope, receive, send)
            finally:
                self._places.leave(key)

        return guarded

    def body_of(self, refusal: Refusal, path: str) -> bytes:
        """What is answered to a request that is refused before anything at its path has seen it."""
        form = self._forms.get("/" + path.lstrip("/").partition("/")[0])
        return form(refusal) if form else refusal.body

    def _key(self, scope: Any) -> str:
        """Under what the request is counted; nothing for who is not limited."""
        client = scope.get("client")
        host = client[0] if client else None
        callers = self._callers
        if callers.is_trusted(host):
            forwarded = b",".join(_values(scope, b"x-forwarded-for"))
            return callers.of_forwarded(host, forwarded.decode("latin-1"))
        key = callers.of_peer(host)
        if not (key or self._has_hinted) and any(_values(scope, b"x-forwarded-for")):
            self._has_hinted = True
            _log.warning(
                "a proxy on this machine is not trusted, so its clients are not limited: name it with --trusted-proxy",
                proxy=host or "unix",
            )
        return key

    def _refusal(self, scope: Any, key: str) -> Refusal | None:
        # First of all, and whatever else may be wrong: no secret is left for a log to show.
        shown = _take_token(scope, with_header=bool(self._tokens))
        is_probe = scope["path"] in PROBES
        if key:
            wait = (self._probes if is_probe else self._requests).take(key, trio.current_time())
            if wait:
                self.refused["request_rate"] += 1
                rate = self._rate / 10 if is_probe else self._rate
                return Refusal("too_many", f"this address may send {rate:g} requests a second", retry_after=wait)
        if self._origins and not self._origins.issuperset(_values(scope, b"origin")):
            self.refused["origin"] += 1
            return Refusal("forbidden", "pages of this origin are not served here")
        if self._tokens and scope["path"] not in OPEN and scope.get("method") != "OPTIONS":
            message = self._objection(shown)
            if message:
                self.refused["token"] += 1
                return Refusal("unauthorized", message)
        if not is_probe and self._places.is_full_for(key):
            self.refused["connections_per_address"] += 1
            return too_many_of(self._places.most_each)
        return None

    def _objection(self, shown: list[bytes]) -> str:
        """What is wrong with the token that is shown; nothing when it is right."""
        if not shown:
            return "a token is needed: Authorization: Bearer TOKEN, X-MBX-APIKEY: TOKEN, or ?token=TOKEN"
        if len(shown) > 1:
            return "show one token"
        found = False
        for token in self._tokens:  # all of them, so that the time tells nothing
            found |= hmac.compare_digest(token, shown[0])
        return "" if found else "the token is not one of this server's"

    def _cross_origin(self, scope: Any) -> list[tuple[bytes, bytes]]:
        """The headers by which a page of another origin may read the answer."""
        if not self._origins:
            return [(b"access-control-allow-origin", b"*")]
        allowed = [origin for origin in _values(scope, b"origin") if origin in self._origins]
        return [(b"access-control-allow-origin", origin) for origin in allowed[:1]] + [(b"vary", b"Origin")]


class _Echo:
    """Sends an answer with the one origin that was asked from, where the application allows all."""

    def __init__(self, send: Any, cross_origin: Iterable[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._cross_origin = cross_origin

    async def __call__(self, message: Any) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            kept = [pair for pair in message["headers"] if pair[0].lower() != b"access-control-allow-origin"]
            message = {**message, "headers": [*kept, *self._cross_origin]}
        await self._send(message)


def _values(scope: Any, wanted: bytes) -> list[bytes]:
    """The values of a header."""
    return [value for name, value in scope["headers"] if name == wanted]


def _take_token(scope: Any, *, with_header: bool) -> list[bytes]:
    """Take what a client shows as a token out of its request, where logs and errors would find it.

    In place: the server writes its access log from the same scope.
    """
    shown: list[bytes] = []
    query = scope["query_string"]
    if b"token=" in query:
        parts = query.split(b"&")
        shown = [unquote_to_bytes(part[6:]) for part in parts if part.startswith(b"token=")]
        scope["query_string"] = b"&".join(part for part in parts if not part.startswith(b"token="))
    if with_header:
        for value in _values(scope, b"authorization"):
            scheme, _, token = value.partition(b" ")
            # The header counts more: a page may have a token in its address, and send another.
            shown = [token.strip()] if scheme.lower() == b"bearer" else []
        if not shown:
            # What clients of Binance's API can be told. Those that have a key of Binance's show the token otherwise.
            shown = _values(scope, _API_KEY)
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"authorization"]
    # Nothing here has a use for a key of Binance's.
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _API_KEY]
    return shown


async def _answer(
    scope: Any, send: Any, refusal: Refusal, body: bytes, cross_origin: Iterable[tuple[bytes, bytes]]
) -> None:
    is_socket = scope["type"] == "websocket"
    if is_socket and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": refusal.close_code, "reason": refusal.code})
        return
    kind = "websocket.http.response" if is_socket else "http.response"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *cross_origin,
        (b"access-control-expose-headers", EXPOSED.encode()),
    ]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", str(refusal.retry_after).encode()))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
