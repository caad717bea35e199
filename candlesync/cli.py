"""The ``candlesync`` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TextIO

import click
import trio
from rich.console import Console

import candlesync
from candlesync import log
from candlesync.config import Settings
from candlesync.demo import run_demo
from candlesync.errors import FeedError, StoreUnavailable
from candlesync.options import (
    settings_from,
    store_settings_from,
    with_bind,
    with_log_level,
    with_settings,
    with_store,
)
from candlesync.owners import show_owners
from candlesync.server import serve as run_server
from candlesync.service import Service
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.venue import VENUES as SIMULATED
from candlesync.watch import watch as run_watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(candlesync.__version__, prog_name="candlesync")
def main() -> None:
    """Gap-free candles from Binance to charts."""


@main.command()
@with_settings
@with_bind
@with_log_level
def serve(bind: tuple[str, ...], log_level: str, **values: Any) -> None:
    """Follow Binance and serve its candles over REST and WebSocket.

    SYMBOLs are followed from the start; others are started when somebody asks for them.
    """
    log.configure(log_level)
    _run(partial(run_server, console=_terminal(sys.stderr)), Service(settings_from(values)), bind)


@main.command()
@with_store
def owners(**values: Any) -> None:
    """Say which nodes share a store, and which of them owns which symbol."""
    settings = store_settings_from(values)
    if settings is None:
        raise click.UsageError("a node with its own memory owns all of its symbols; name a shared store: --store URL")
    _run(show_owners, settings, click.echo)


@main.command()
@click.argument("symbol")
@click.option("--interval", "-i", default="1m", show_default=True, help="Such as 1m, 1h, 1M.")
@click.option(
    "--url",
    default="http://127.0.0.1:8000",
    show_default=True,
    envvar="CANDLESYNC_URL",
    show_envvar=True,
    help="Of a running server.",
)
@click.option(
    "--token", default="", envvar="CANDLESYNC_TOKEN", show_envvar=True, help="What a server wants that has tokens."
)
def watch(symbol: str, interval: str, url: str, token: str) -> None:
    """Watch a series of a running server.

    On a terminal it is drawn; otherwise each close, correction and change of state is a line. Ctrl-C ends it.
    """
    console = _terminal(sys.stdout)
    try:
        trio.run(partial(run_watch, symbol, interval, url=url, token=token, console=console, say=click.echo))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    except FeedError as error:
        raise click.ClickException(f"{error.code}: {error}") from error
    except BrokenPipeError:  # who read the lines has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes what is left at its end


@main.command()
@with_settings
@with_bind
@with_log_level
@click.option(
    "--minute",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one lasts.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated prices.")
def demo(bind: tuple[str, ...], log_level: str, minute: float, seed: int, **values: Any) -> None:
    """Serve a simulated Binance, fast and without network, and say which addresses to open.

    SYMBOLs are BTCUSDT and ETHUSDT unless others are given.
    """
    log.configure(log_level)
    values["symbols"] = values["symbols"] or ("BTCUSDT", "ETHUSDT")

    if values["venue"] not in SIMULATED:
        raise click.UsageError(f"{values['venue']} is not simulated; there are {', '.join(SIMULATED)}")
    simulated = SimulatorSettings(venue=values["venue"], seed=seed, minute_seconds=minute)

    def make_settings(rest_url: str, stream_url: str) -> Settings:
        return settings_from(values | {"rest_url": rest_url, "stream_url": stream_url + simulated.of_venue.streams})

    _run(partial(run_demo, console=_terminal(sys.stderr)), make_settings, simulated, bind, click.echo)


def _terminal(stream: TextIO) -> Console | None:
    """The terminal that an output goes to, if it is one that can be drawn on."""
    # Not what rich would say: the environment can tell it that a file is a terminal.
    return Console(file=stream) if stream.isatty() and os.environ.get("TERM") != "dumb" else None


def _run(main_task: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    try:
        trio.run(main_task, *arguments)
    except* (OSError, StoreUnavailable) as group:
        raise click.ClickException("; ".join(str(error) for error in _leaves(group))) from group


def _leaves(group: BaseExceptionGroup[Any]) -> list[BaseException]:
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return leaves
