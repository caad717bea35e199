"""The command line's options, each with its environment variable, and the `Settings` that they make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from candlesync.binance.rest_client import RestSettings
from candlesync.binance.stream import StreamSettings
from candlesync.binance.venue import SPOT, VENUES
from candlesync.binance.weight import WeightSettings
from candlesync.config import Settings
from candlesync.core.audit import AuditSettings
from candlesync.core.sync import Rules
from candlesync.inspection import InspectionSettings
from candlesync.log import FORMATS
from candlesync.option_values import (
    STORES,
    Number,
    Seconds,
    read_binds,
    read_intervals,
    read_origins,
    read_prefix,
    read_proxies,
    read_store,
    read_symbols,
    read_tokens,
    read_url,
)
from candlesync.store.address import Address
from candlesync.store.redis import RedisSettings
from candlesync.supervisor import SupervisorSettings
from candlesync.web.access import AccessSettings

F = TypeVar("F", bound=Callable[..., object])


def _option(name: str, **attributes: Any) -> Callable[[F], F]:
    variable = "CANDLESYNC_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, **{"show_default": True} | attributes)


_STORE_DEFAULTS = RedisSettings(Address(""))

_with_store = _option(
    "--store",
    default="memory",
    callback=read_store,
    metavar="memory|URL",
    help=f"Where candles are kept: this process's memory, or a Redis or Valkey that several nodes share: {STORES}.",
)

_with_store_prefix = _option(
    "--store-prefix",
    callback=read_prefix,
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
    callback=read_url("http", "https"),
    metavar="URL",
    show_default="the venue's hosts",
    help="Binance REST: the part before /api/v3/klines (usdm: /fapi/v1/klines).",
)

_with_stream_url = _option(
    "--stream-url",
    callback=read_url("ws", "wss"),
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
        type=Seconds(0.5, 60.0),
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
        type=Seconds(1.0),
        metavar="SECONDS",
        help="A series that was started on demand is let go when nobody has wanted it for so long.",
    ),
    _option(
        "--outage-pause",
        default=_DEFAULTS.rules.outage_pause,
        type=Seconds(0.0),
        metavar="SECONDS",
        help="A minute that REST does not show is asked for again after so long before it counts as an outage.",
    ),
    _option(
        "--silence",
        default=_DEFAULTS.inspection.silence,
        type=Seconds(1.0),
        metavar="SECONDS",
        help="A stream that shows nothing for so long is compared with REST, to see whether it is dead.",
    ),
    _option(
        "--audit-share",
        default=_DEFAULTS.audit.share,
        type=Number(0.0, _DEFAULTS.audit.busy),
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
        type=Number(0),
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
        type=Number(0),
        help="Messages a second from the client of one WebSocket, twenty seconds' worth at once; and as many pings and "
        "pieces of messages. 0: no limit.",
    ),
    _option(
        "--allow-origin",
        multiple=True,
        callback=read_origins,
        metavar="ORIGIN",
        help="Pages that may ask, such as https://chart.example; give it again for more, and for this server's own "
        "page. All when not given.",
    ),
    _option(
        "--token",
        multiple=True,
        callback=read_tokens,
        metavar="TOKEN",
        help="Clients have to show it, as Authorization: Bearer TOKEN, X-MBX-APIKEY: TOKEN or ?token=TOKEN; give it "
        "again for more. Others on this machine see a command line: better use the variable.",
    ),
    _option(
        "--trusted-proxy",
        multiple=True,
        callback=read_proxies,
        metavar="ADDRESS|NETWORK|unix",
        help="A proxy whose X-Forwarded-For says who the client is; give it again for more.",
    ),
    _option(
        "--grace",
        default=_DEFAULTS.grace,
        type=Seconds(1.0),
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
    callback=read_binds,
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
