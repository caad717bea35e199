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
from candlesync.option_values import read_intervals, read_symbols
from candlesync.options import (
    settings_from,
    store_settings_from,
    with_bind,
    with_log,
    with_settings,
    with_store,
    with_upstream,
)
from candlesync.owners import show_owners
from candlesync.server import serve as run_server
from candlesync.service import Service
from candlesync.simulator.settings import SimulatorSettings
from candlesync.simulator.venue import VENUES as SIMULATED
from candlesync.verify.findings import CannotCheck
from candlesync.verify.report import show as show_findings
from candlesync.verify.run import UNCHECKED, Task, check_address, status_of
from candlesync.verify.run import verify as run_verify
from candlesync.watch import watch as run_watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(candlesync.__version__, prog_name="candlesync")
def main() -> None:
    """Gap-free candles from Binance to charts."""


@main.command()
@with_settings
@with_bind
@with_log
def serve(bind: tuple[str, ...], log_level: str, log_format: str, **values: Any) -> None:
    """Follow Binance and serve its candles over REST and WebSocket.

    SYMBOLs are followed from the start; others are started when somebody asks for them.
    """
    log.configure(log_level, log_format)
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
@with_log
@click.option(
    "--minute",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one lasts.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the simulated prices.")
def demo(bind: tuple[str, ...], log_level: str, log_format: str, minute: float, seed: int, **values: Any) -> None:
    """Serve a simulated Binance, fast and without network, and say which addresses to open.

    SYMBOLs are BTCUSDT and ETHUSDT unless others are given.
    """
    log.configure(log_level, log_format)
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


@main.command()
@click.argument("url")
@click.argument("symbols", nargs=-1, callback=read_symbols, metavar="[SYMBOL]...")
@click.option("--interval", multiple=True, callback=read_intervals, metavar="INTERVAL", help="Again for more.")
@click.option(
    "--for",
    "seconds",
    type=click.FloatRange(0),
    default=70.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to follow the WebSockets; a minute closes once a minute. 0: REST alone.",
)
@click.option(
    "--token",
    envvar="CANDLESYNC_TOKEN",
    show_envvar=True,
    default="",
    metavar="TOKEN",
    help="What the server asks for.",
)
@with_upstream
def verify(url: str, seconds: float, **values: Any) -> None:
    """Check the server at URL from outside, against Binance itself.

    Of each series the newest thousand candles have to be continuous, and equal to Binance's digit for digit; then its
    WebSocket is followed. Without SYMBOLs the series are those that the server says it follows from the start, which
    it is asked for at /metrics; of SYMBOLs, 1m when no interval is given. Delays are measured of the first 20 series.

    Exit status: 0 all is good, 1 there are differences, 2 something could not be checked.
    """
    log.configure("error")
    token = values["token"].partition(",")[0]  # the server's own variable may hold several
    task = Task(url, values["symbols"], values["interval"], seconds=seconds, token=token)
    try:
        check_address(url, token)
        findings = trio.run(run_verify, task, values["rest_url"], values["stream_url"], _say_aside)
    except* CannotCheck as group:
        raise _Unchecked(str(_leaves(group)[0])) from None
    terminal = Console() if sys.stdout.isatty() else None
    show_findings(findings, click.echo, terminal=terminal)
    click.get_current_context().exit(status_of(findings))


def _say_aside(text: str) -> None:
    click.echo(text, err=True)


class _Unchecked(click.ClickException):
    exit_code = UNCHECKED


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
