"""The service with its listening sockets: what ``candlesync serve`` and ``candlesync demo`` run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from rich.console import Console

from candlesync.backfill import report_backfill
from candlesync.edge.admission import raise_file_limit
from candlesync.edge.collector import relax
from candlesync.edge.line import Line
from candlesync.edge.server import install
from candlesync.service import Service

_log = structlog.get_logger(__name__)

MAX_MESSAGE = 64 * 1024
"""Bytes of a client's message at most: a subscription has about 100."""
PING_INTERVAL = 20.0
"""Seconds; proxies cut connections that are silent for 60 (nginx's default)."""
KEEP_ALIVE = 75.0
"""Seconds for which a connection may be idle; nginx's default. Programs ask at a steady pace, and one that asks just as
its connection is being closed gets an error: with Hypercorn's own 5 s, freqtrade, which asks every 5 s, did twice in
four minutes (2026-11)."""
BACKLOG = 4096
"""Connections that wait to be accepted, as many as Linux allows by default (net.core.somaxconn). All charts of a node
that goes down come at once: with Hypercorn's own 100, of 3,000 clients 12 to 39% had no answer within 30 s; with this,
all had one within 2.3 to 4.1 s (2026-11)."""


def hypercorn_config(binds: Sequence[str], grace: float) -> Config:
    """What ``hypercorn.toml`` says, for our own server."""
    config = Config()
    config.bind = list(binds)
    config.backlog = BACKLOG
    config.graceful_timeout = grace / 2
    config.keep_alive_timeout = KEEP_ALIVE
    config.websocket_ping_interval = PING_INTERVAL
    config.websocket_max_message_size = MAX_MESSAGE
    config.include_server_header = False
    config.loglevel = "WARNING"
    return config


def prepare_edge(service: Service, on_termination: Callable[[], None]) -> None:
    """Make Hypercorn serve as ``service``'s settings say, with as many connections as the process may have files."""
    settings = service.settings
    # Files of our own: a Binance connection for each symbol, REST, the store, and some more. Of few files, half.
    files = raise_file_limit()
    room = max(files - settings.supervisor.max_symbols - 100, files // 2)
    if room < settings.max_connections:
        _log.warning(
            "fewer connections than allowed: raise the limit of open files (ulimit -n, LimitNOFILE=)",
            files=files,
            connections=room,
            max_connections=settings.max_connections,
        )
        service.connections.allow_only(room)
    service.connections.cut_off = lambda: Line.cut_off
    install(
        send_timeout=settings.send_timeout,
        grace=settings.grace,
        on_termination=on_termination,
        places=service.connections,
    )


async def serve(
    service: Service,
    binds: Sequence[str],
    *,
    console: Console | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until SIGTERM or SIGINT, then end within the grace time. Starts with the list of the addresses.

    ``console`` is a terminal on which the first backfill is drawn; without one, the log says how it goes.
    Raises `OSError` when an address cannot be had, and in a group what no part of the service could deal with.
    """
    relax()
    grace = service.settings.grace
    prepare_edge(service, service.stop)
    config = hypercorn_config(binds, grace)
    signalled = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(_watch_signals, signalled)
        await nursery.start(service.run)
        reporting = trio.CancelScope()
        nursery.start_soon(_report, service, console, reporting)
        app = cast("Any", service.app)  # Hypercorn's and Quart's types of one ASGI application differ
        with trio.CancelScope() as serving:
            async with trio.open_nursery() as sockets:
                run = partial(hypercorn_serve, app, config, shutdown_trigger=signalled.wait)
                try:
                    addresses = await sockets.start(run)
                except* OSError as group:
                    raise OSError(f"cannot listen on {', '.join(binds)}: {_first(group)}") from group
                _log.info("serving", addresses=addresses)
                task_status.started(addresses)
                await signalled.wait()
                reporting.cancel()
                _log.info("going down", grace=grace)
                serving.deadline = trio.current_time() + grace
        nursery.cancel_scope.cancel()


async def _report(service: Service, console: Console | None, scope: trio.CancelScope) -> None:
    with scope:
        await report_backfill(len(service.settings.pinned), service.supervisor.not_ready, console)


async def _watch_signals(signalled: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            signalled.set()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
