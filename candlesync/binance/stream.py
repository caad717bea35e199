"""One WebSocket connection to Binance's kline streams: its settings, its words, and what its end means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlsplit

import h11
import msgspec
import trio_websocket

from candlesync.binance.venue import SPOT, Venue
from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS
from candlesync.websocket import leaves_of

SYMBOLS_PER_CONNECTION: Final = SPOT.streams_per_connection // len(INTERVALS)
"""So many symbols fit whatever intervals they come to follow, on any venue."""

LONGEST_BAN: Final = 3 * 86400.0
"""Seconds; documented under "IP Limits". A ``Retry-After`` beyond it, from whoever stands between, is cut to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How the connections to Binance are kept. Times are seconds. Raises `ValueError` for what cannot work.

    "Documented" means developers.binance.com, Spot, "WebSocket Streams"; what other venues allow is in their table.
    """

    venue: Venue = SPOT
    stream_url: str = ""
    """The part before ``/stream``; ``ws`` or ``wss``, may end in a path and a slash. Empty: the venue's own hosts."""
    connect_timeout: float = 10.0
    """For name lookup, TCP, TLS and handshake together; from far away, these take about two seconds."""
    ping_interval: float = 15.0
    """From the end of one ping of ours to the next: a dead connection shows within this and ``ping_timeout``."""
    ping_timeout: float = 10.0
    """An unanswered ping is the death of its connection: silence alone is not, a thin pair has no frame for minutes."""
    backoff_first: float = 0.25
    """The longest pause before the first attempt after a settled connection; doubled with each one after that."""
    backoff_cap: float = 10.0
    """The pause never grows beyond this: Binance's limit on attempts is kept by the pace, not by patience."""
    settled_after: float = 10.0
    """A connection that has lasted this long, and brought a candle, resets the backoff. One that is made again and
    again and dies at once does not."""
    refused_pause: float = 60.0
    """After HTTP 403 (firewall) or 451 (location): neither goes in seconds, and asking on makes the first worse."""
    limited_pause: float = 120.0
    """After HTTP 429 or 418 without a ``Retry-After``, for every connection; the shortest documented ban."""
    acknowledge_timeout: float = 5.0
    """For the answer to SUBSCRIBE or UNSUBSCRIBE; Binance answers within a round trip."""
    messages_per_second: int = 3
    """SUBSCRIBE and UNSUBSCRIBE. 5 messages in are documented, pings and pongs included: two are left for those."""
    message_bytes: int = 4000
    """Of one SUBSCRIBE. Beyond about 4,096 bytes, Binance does not answer it (JKorf/Binance.Net issues 884, 1180)."""
    url_streams: int = 100
    """In the URL, when SUBSCRIBE can bring the others. URLs beyond 8,004 characters were refused
    (oliver-zehentleitner/unicorn-binance-websocket-api issue 38); 100 of the longest known names are under 5,000."""
    max_message_size: int = 2**20
    """Bytes; a longer message ends the connection. A kline frame has about 350, an acknowledgement 30."""
    message_queue_size: int = 64
    """Frames between trio-websocket's reader and us. The reader answers no ping while this is full, so it is emptied
    at once by a loop that never waits; more than one, so that the closes of a minute do not cost a task switch each."""
    log_period: float = 30.0
    """At most one log line of a kind and feed in this time; what was left out is counted in the next one."""
    connection_attempts: int = 250
    """In any ``connection_period``. 300 are documented for one address; the rest is left to its other programs."""
    connection_period: float = 300.0
    """Documented: 5 minutes."""
    lifetime: float = 84_600.0
    """Of a connection, at most: 23.5 hours. Then another takes its place; after 24 hours Binance ends it."""
    lifetime_spread: float = 3_600.0
    """Each is replaced up to so much earlier, at random: the feeds of a process began in one moment."""
    handover_grace: float = 2.0
    """By so much one of two connections may be behind the other. Closes of thin pairs come up to 2.4 s late, but on
    both at once."""
    handover_settle: float = 5.0
    """When neither connection shows anything of a series for so long, nothing is on its way that only one will show."""
    handover_timeout: float = 60.0
    """From the attempt to connect. A connection that cannot take over within it is given up, and the old one stays; but
    one whose server shuts down is left, and what was missed comes from REST."""
    handover_look: float = 0.25
    """So often it is looked whether the new connection has taken over."""
    handover_retry: float = 120.0
    """Pauses between attempts at a new connection while the old one is good grow to this."""
    symbols_per_connection: int = 1
    """1: each symbol has its own connection. More, at most 64: so many share one, for hundreds of symbols."""
    symbol_queue_size: int = 256
    """Events of one symbol between a shared feed and the symbol's own task, which takes them as fast as it is run."""

    def __post_init__(self) -> None:
        if self.stream_url:
            _check(self.stream_url)
        if not 1 <= self.symbols_per_connection <= SYMBOLS_PER_CONNECTION:
            raise ValueError(f"symbols per connection {self.symbols_per_connection}: 1 to {SYMBOLS_PER_CONNECTION}")
        for name, value, most in (
            ("streams in the URL", self.url_streams, self.venue.streams_per_connection),
            ("messages per second", self.messages_per_second, self.venue.messages_per_second),
            ("connection attempts", self.connection_attempts, self.venue.connections),
        ):
            if not 1 <= value <= most:
                raise ValueError(f"{name} {value}: 1 to {most}")
        if not 0 <= self.lifetime_spread < self.lifetime:
            raise ValueError(
                f"lifetime {self.lifetime:g} s, less up to {self.lifetime_spread:g} s: nothing is left of it"
            )
        if self.symbol_queue_size < 1:
            raise ValueError(f"symbol queue size {self.symbol_queue_size}: at least 1")

    @property
    def urls(self) -> tuple[str, ...]:
        """Where to connect, the best first. Who names a host is never sent to another one."""
        return (self.stream_url,) if self.stream_url else self.venue.stream_urls


def _check(url: str) -> None:
    parts = urlsplit(url)
    # `.port` raises ValueError by itself for a port that is none.
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.port == 0:
        raise ValueError(f"stream URL {url!r}: ws://host or wss://host is needed")
    if parts.query or parts.fragment:
        raise ValueError(f"stream URL {url!r}: only the part before /stream is needed")


def stream_name(series: Series) -> str:
    """Binance's name of a kline stream: the symbol in lower case, the interval as it is (``1m`` is not ``1M``)."""
    return f"{series.symbol.lower()}@kline_{series.interval}"


def combined_url(stream_url: str, series: Iterable[Series]) -> str:
    """The URL of one connection that carries ``series``."""
    # Since 2025 Binance lists symbols beyond ASCII, which a request line cannot hold as they are.
    names = "/".join(quote(stream_name(one), safe="@_-.") for one in series)
    return f"{stream_url.rstrip('/')}/stream?streams={names}"


@dataclass(frozen=True, slots=True)
class Request:
    """A SUBSCRIBE or UNSUBSCRIBE."""

    method: str
    series: tuple[Series, ...]

    def text(self, id_: int) -> str:
        """The message, as it is sent."""
        params = [stream_name(one) for one in self.series]
        return msgspec.json.encode({"method": self.method, "params": params, "id": id_}).decode()


def fitting(method: str, series: Iterable[Series], message_bytes: int) -> Request:
    """A request for the first of ``series``, as many as one message of ``message_bytes`` holds, but at least one."""
    chosen: list[Series] = []
    size = 64  # of everything around the names, with the longest method and id
    for one in series:
        size += len(stream_name(one).encode()) + 3  # quotes and comma
        if chosen and size > message_bytes:
            break
        chosen.append(one)
    return Request(method, tuple(chosen))


class Roster:
    """Which series a connection carries, and which are wanted on it. Pure."""

    def __init__(self, wanted: set[Series]) -> None:
        self.wanted = wanted
        """The owner's: it changes while the connection is there."""
        self.carried: set[Series] = set()
        """In the URL of the connection, or acknowledged on it. Never more than Binance allows: `request`."""

    def connect(self, limit: int | None) -> list[Series]:
        """The series for the URL of a new connection, which carries them from then on: at most ``limit``."""
        chosen = sorted(self.wanted, key=stream_name)[:limit]
        self.carried = set(chosen)
        return chosen

    def request(self, message_bytes: int) -> Request | None:
        """What to ask of Binance next, if anything."""
        # What is too much goes first: what is carried then stays within what is wanted, and so within the limit.
        for method, series in (("UNSUBSCRIBE", self.carried - self.wanted), ("SUBSCRIBE", self.wanted - self.carried)):
            if series:
                return fitting(method, sorted(series, key=stream_name), message_bytes)
        return None

    def ask(self, request: Request) -> None:
        """Binance is asked now. Nobody relies any more on what is to go."""
        if request.method == "UNSUBSCRIBE":
            self.carried.difference_update(request.series)

    def grant(self, request: Request) -> None:
        """Binance has acknowledged the request."""
        if request.method == "SUBSCRIBE":
            self.carried.update(request.series)

    def arrivals(self, live: set[Series]) -> list[Series]:
        """Series that are wanted and carried, beside those that are ``live``."""
        return sorted((self.wanted & self.carried) - live, key=stream_name)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no connection."""

    reason: str
    """In words, for logs and `stream_lost`."""
    status: int | None = None
    """Of the refused handshake, if that is what it was."""
    retry_after: float | None = None
    """Seconds, as the refusal said; `None` when it did not."""


def failure_of(error: BaseException) -> Failure:
    """What an exception of `ENDS`, or a group of them, means. A refusal says more than what came of it."""
    leaves = list(leaves_of(error))
    for leaf in leaves:
        if isinstance(leaf, trio_websocket.ConnectionRejected):
            return Failure(_refusal(leaf.status_code), leaf.status_code, _retry_after(leaf.headers))
    return Failure(_words(leaves[0]))


def _refusal(status: int) -> str:
    # developers.binance.com, Spot, "HTTP return codes"; 451 is RFC 7725.
    match status:
        case 429:
            words = "too many connections from this address"
        case 418:
            words = "this address is banned for a while"
        case 403:
            words = "Binance's firewall refuses this address"
        case 451:
            words = "Binance does not serve this location"
        case _:
            words = "the connection was refused"
    return f"{words} (HTTP {status})"


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        # Binance documents seconds.
        if name.lower() == b"retry-after" and value.isdigit():
            return min(float(value), LONGEST_BAN)
    return None


def _words(error: BaseException) -> str:
    if isinstance(error, trio_websocket.ConnectionClosed):
        if error.reason is None:
            return "closed"
        said = f": {error.reason.reason[:100]!r}" if error.reason.reason else ""
        return f"closed (code {error.reason.code} {error.reason.name}{said})"
    if isinstance(error, h11.ProtocolError):
        return "the answer is no WebSocket handshake"
    text = str(error) or type(error).__name__
    # open_websocket says nothing in its HandshakeError itself.
    return f"{text}: {error.__cause__}" if error.__cause__ and str(error.__cause__) not in text else text
