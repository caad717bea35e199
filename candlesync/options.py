"""The command line's options, each with its environment variable, and the `Settings` that they make."""

from __future__ import annotations

import os
from collections.abc import Callable
from math import isfinite
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from candlesync.binance.rest import RestSettings
from candlesync.binance.stream import StreamSettings
from candlesync.binance.venue import SPOT, VENUES
from candlesync.binance.weight import WeightSettings
from candlesync.config import Settings
from candlesync.core.address import Networks
from candlesync.core.audit import AuditSettings
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.sync import Rules
from candlesync.inspection import InspectionSettings
from candlesync.log import FORMATS
from candlesync.store.address import Address
from candlesync.store.codec import Keys
from candlesync.store.redis import RedisSettings
from candlesync.supervisor import SupervisorSettings
from candlesync.web.access import AccessSettings, Token, read_origin
from candlesync.web.parameters import read_series
from candlesync.web.refusal import Refusal

F = TypeVar("F", bound=Callable[..., object])


def _option(name: str, **attributes: Any) -> Callable[[F], F]:
    variable = "CANDLESYNC_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, **{"show_default": True} | attributes)


def _words(values: tuple[str, ...]) -> list[str]:
    """What was given; an environment variable may hold several, apart by commas or spaces."""
    return list(dict.fromkeys(" ".join(values).replace(",", " ").split()))


def read_symbols(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """A click callback: symbols in upper case, each once."""
    try:
        return tuple(dict.fromkeys(read_series(word, "1m").symbol for word in _words(values)))
    except Refusal as refusal:
        raise click.BadParameter(f"{refusal.message}; symbols look like BTCUSDT") from None


def read_intervals(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[Interval, ...]:
    """A click callback: intervals by their names."""
    try:
        return tuple(Interval(word) for word in _words(values))
    except ValueError as error:
        raise click.BadParameter(f"{error}; there are {', '.join(map(str, INTERVALS))}") from None


def _binds(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    words = _words(values)
    for word in words:
        host, _, port = word.rpartition(":")
        if not (host and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) < 65536):
            raise click.BadParameter(f"{word!r} is not HOST:PORT, such as 127.0.0.1:8000 or [::]:8000")
    if not words:
        raise click.BadParameter("no address is given; they look like 127.0.0.1:8000 or [::]:8000")
    return tuple(words)


def _url(*schemes: str) -> Callable[[click.Context, click.Parameter, str | None], str]:
    def check(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str:
        if value is None:
            return ""
        try:
            parts = urlsplit(value)
            # Asking for the port raises, too, when it is none.
            is_good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_good = False
        if not is_good or parts.query or parts.fragment:
            raise click.BadParameter(f"{value!r} is not {' or '.join(schemes)}, a host, and perhaps a port and a path")
        return value

    return check


class _Number(click.FloatRange):
    """A finite number: NaN is in every range, and without an end there would be none."""

    unit = ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not isfinite(number):
            self.fail(f"{value!r} is not a number{self.unit}.", param, ctx)
        return number


class _Seconds(_Number):
    name = "seconds"
    unit = " of seconds"


def _store(_context: click.Context, _parameter: click.Parameter, value: str) -> Address | None:
    """Where Redis is; `None` for this process's memory."""
    if value == "memory":
        return None
    address = Address(value)
    try:
        address.options()
    except ValueError as error:
        raise click.BadParameter(f"{error}; a store is memory, or {_STORES}") from None
    return address


def _prefix(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    try:
        Keys(_STORE_DEFAULTS.prefix if value is None else value, 0)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def _origins(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    words = _words(values)
    try:
        return () if "*" in words else tuple(dict.fromkeys(read_origin(word) for word in words))
    except ValueError as error:
        raise click.BadParameter(f"{error}; origins look like https://chart.example") from None


def _tokens(_context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[Token, ...]:
    # Neither here nor in what is raised is a token said: it would end in a log.
    texts = [text for value in values for text in value.split(",")]
    # Click takes an empty variable for none, and a secret that was lost on its way must not open the server.
    if not all(texts) or (not texts and not os.environ.get(str(parameter.envvar), "unset").strip()):
        raise click.BadParameter("a token is empty")
    try:
        return tuple(Token(text) for text in dict.fromkeys(texts))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _proxies(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    words = _words(values)
    for word in words:
        try:
            Networks([word])
        except ValueError as error:
            message = f"{error}; proxies look like 10.0.0.1, 10.0.0.0/8, 2001:db8::/32 or unix"
            raise click.BadParameter(message) from None
    return tuple(words)


_STORES = "redis://HOST:PORT/DATABASE, rediss:// (TLS), unix:///PATH, or redis+cluster://HOST:PORT,HOST:PORT"

_with_store = _option(
    "--store",
    default="memory",
    callback=_store,
    metavar="memory|URL",
    help=f"Where candles are kept: this process's memory, or a Redis or Valkey that several nodes share: {_STORES}.",
)

_STORE_DEFAULTS = RedisSettings(Address(""))

_with_store_prefix = _option(
    "--store-prefix",
    callback=_prefix,
    metavar="WORD",
    show_default=f"{_STORE_DEFAULTS.prefix}, on other venues than {SPOT.name} {_STORE_DEFAULTS.prefix}-VENUE",
    help="Begins all names in Redis: deployments that share a server have different ones.",
)

_with_venue = _option(
    "--venue",
    default=SPOT.name,
    type=click.Choice(list(VENUES)),
    help="Which market of Binance: spot, Binance.US, or USD-M futures. One process follows one.",
)


_STREAM, _DEFAULTS = StreamSettings(), Settings()

_with_rest_url = _option(
    "--rest-url",
    callback=_url("http", "https"),
    metavar="URL",
    show_default="the venue's hosts",
    help="Binance REST: the part before /api/v3/klines (usdm: /fapi/v1/klines).",
)

_with_stream_url = _option(
    "--stream-url",
    callback=_url("ws", "wss"),
    metavar="URL",
    show_default="the venue's hosts",
    help="Binance streams: the part before /ws or /stream (usdm: with /market).",
)

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument("symbols", nargs=-1, envvar="CANDLESYNC_SYMBOLS", callback=read_symbols, metavar="[SYMBOL]..."),
    _option(
        "--interval",
        multiple=True,
        default=("1m",),
        callback=read_intervals,
        metavar="INTERVAL",
        help="Interval to keep of each SYMBOL; give it again for more. Other series are started when asked for.",
    ),
    _with_venue,
    _with_store,
    _with_store_prefix,
    _option(
        "--node-name",
        default=_DEFAULTS.node_name,
        metavar="WORD",
        help="How this node is called where people see it; the host and the process when not given.",
    ),
    _option(
        "--lease",
        default=_STORE_DEFAULTS.lease,
        type=_Seconds(0.5, 60.0),
        metavar="SECONDS",
        help="With Redis: a symbol whose node has died is taken over after so long. Shorter, and a busy node loses it.",
    ),
    _with_rest_url,
    _with_stream_url,
    _option(
        "--history",
        default=_DEFAULTS.rules.history,
        type=click.IntRange(1000, 20_000),
        help="Candles kept of each series.",
    ),
    _option(
        "--symbols-per-connection",
        default=_STREAM.symbols_per_connection,
        type=click.IntRange(1, 64),
        help="Symbols that share a Binance connection; more than 1 makes sense from a hundred symbols on.",
    ),
    _option(
        "--max-symbols",
        default=_DEFAULTS.supervisor.max_symbols,
        type=click.IntRange(1),
        help="Symbols followed at once; pinned ones are always followed.",
    ),
    _option(
        "--idle",
        default=_DEFAULTS.supervisor.idle,
        type=_Seconds(1.0),
        metavar="SECONDS",
        help="A series that was started on demand is let go when nobody has wanted it for so long.",
    ),
    _option(
        "--outage-pause",
        default=_DEFAULTS.rules.outage_pause,
        type=_Seconds(0.0),
        metavar="SECONDS",
        help="A minute that REST does not show is asked for again after so long before it counts as an outage.",
    ),
    _option(
        "--silence",
        default=_DEFAULTS.inspection.silence,
        type=_Seconds(1.0),
        metavar="SECONDS",
        help="A stream that shows nothing for so long is compared with REST, to see whether it is dead.",
    ),
    _option(
        "--audit-share",
        default=_DEFAULTS.audit.share,
        type=_Number(0.0, _DEFAULTS.audit.busy),
        help="Part of Binance's request weight that comparing live series with REST may take; 0 turns it off.",
    ),
    _option(
        "--max-connections",
        default=_DEFAULTS.max_connections,
        type=click.IntRange(1),
        help="Connections of all clients; beyond it they get 503. At most what the limit of open files leaves.",
    ),
    _option(
        "--max-connections-per-address",
        default=_DEFAULTS.access.connections,
        type=click.IntRange(0),
        help="Connections, WebSockets or requests under way of one address; beyond it 429. 0: no limit.",
    ),
    _option(
        "--request-rate",
        default=_DEFAULTS.access.request_rate,
        type=_Number(0),
        help="Requests a second of one address, ten seconds' worth at once; beyond it 429. 0: no limit.",
    ),
    _option(
        "--max-subscriptions",
        default=_DEFAULTS.max_subscriptions,
        type=click.IntRange(1, 100_000),
        help="Series that one WebSocket may subscribe to.",
    ),
    _option(
        "--message-rate",
        default=_DEFAULTS.message_rate,
        type=_Number(0),
        help="Messages a second from the client of one WebSocket, twenty seconds' worth at once; and as many pings and "
        "pieces of messages. 0: no limit.",
    ),
    _option(
        "--allow-origin",
        multiple=True,
        callback=_origins,
        metavar="ORIGIN",
        help="Pages that may ask, such as https://chart.example; give it again for more, and for this server's own "
        "page. All when not given.",
    ),
    _option(
        "--token",
        multiple=True,
        callback=_tokens,
        metavar="TOKEN",
        help="Clients have to show it, as Authorization: Bearer TOKEN, X-MBX-APIKEY: TOKEN or ?token=TOKEN; give it "
        "again for more. Others on this machine see a command line: better use the variable.",
    ),
    _option(
        "--trusted-proxy",
        multiple=True,
        callback=_proxies,
        metavar="ADDRESS|NETWORK|unix",
        help="A proxy whose X-Forwarded-For says who the client is; give it again for more.",
    ),
    _option(
        "--grace",
        default=_DEFAULTS.grace,
        type=_Seconds(1.0),
        metavar="SECONDS",
        help="From SIGTERM or Ctrl-C to the end at most, whatever clients do.",
    ),
)


def with_settings(command: F) -> F:
    """Give a click command the options that `settings_from` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


with_bind = _option(
    "--bind",
    multiple=True,
    default=("127.0.0.1:8000",),
    callback=_binds,
    metavar="HOST:PORT",
    help="Where to listen; give it again for more. Port 0 takes a free one.",
)


_log_level = _option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="How much is said on standard error.",
)

_log_format = _option(
    "--log-format",
    type=click.Choice(list(FORMATS)),
    default="auto",
    help="How: lines for people, or a JSON object a line; auto is console on a terminal, and json elsewhere.",
)


def with_upstream(command: F) -> F:
    """Give a click command the options that say where Binance is."""
    return _with_rest_url(_with_stream_url(command))


def with_log(command: F) -> F:
    """Give a click command the options that say how it logs."""
    return _log_level(_log_format(command))


def settings_from(values: dict[str, Any]) -> Settings:
    """The settings that a command with these options was given. Raises `click.UsageError` for what cannot work."""
    try:
        return _settings(values)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _settings(values: dict[str, Any]) -> Settings:
    venue = VENUES[values["venue"]]
    return Settings(
        symbols=values["symbols"],
        intervals=values["interval"],
        rules=Rules(history=values["history"], outage_pause=values["outage_pause"]),
        rest=RestSettings(venue=venue, base_url=values["rest_url"]),
        weight=WeightSettings(limit=venue.weight_limit),
        stream=StreamSettings(
            venue=venue,
            stream_url=values["stream_url"],
            symbols_per_connection=values["symbols_per_connection"],
        ),
        inspection=InspectionSettings(silence=values["silence"]),
        audit=AuditSettings(share=values["audit_share"]),
        supervisor=SupervisorSettings(
            max_symbols=values["max_symbols"],
            idle=values["idle"],
            # What clients start must leave the same part of the weight to others everywhere.
            start_rate=_DEFAULTS.supervisor.start_rate * venue.generosity,
            start_burst=_DEFAULTS.supervisor.start_burst * venue.generosity,
        ),
        store=store_settings_from(values, lease=values["lease"]),
        node_name=values["node_name"],
        access=AccessSettings(
            connections=values["max_connections_per_address"],
            request_rate=values["request_rate"],
            trusted_proxies=values["trusted_proxy"],
            origins=values["allow_origin"],
            tokens=values["token"],
        ),
        max_connections=values["max_connections"],
        max_subscriptions=values["max_subscriptions"],
        message_rate=values["message_rate"],
        grace=values["grace"],
    )


def with_store(command: F) -> F:
    """Give a click command the options that `store_settings_from` reads."""
    return _with_venue(_with_store(_with_store_prefix(command)))


def store_settings_from(values: dict[str, Any], *, lease: float = _STORE_DEFAULTS.lease) -> RedisSettings | None:
    """Where the shared store is, that a command with `with_store` was given; `None` when it is memory."""
    address = values["store"]
    if address is None:
        return None
    prefix = values["store_prefix"] or VENUES[values["venue"]].store_prefix(_STORE_DEFAULTS.prefix)
    return RedisSettings(address, prefix=prefix, lease=lease)


def settings_from_environment() -> tuple[str, str, Settings]:
    """Log level, log format and settings of the environment variables alone, for ``candlesync.asgi``.

    Raises `click.UsageError`.
    """

    @with_settings
    @with_log
    def read(**_values: Any) -> None: ...

    command = click.command("candlesync")(read)
    with command.make_context("candlesync", []) as context:
        params = context.params
        return params["log_level"], params["log_format"], settings_from(params)
