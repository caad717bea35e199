"""The ``candlesync`` command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import click
import trio

import candlesync
from candlesync import log
from candlesync.config import Settings
from candlesync.demo import run_demo
from candlesync.errors import StoreUnavailable
from candlesync.options import (
    settings_from,
    store_settings_from,
    with_bind,
    with_log,
    with_settings,
    with_store,
)
from candlesync.owners import show_owners
from candlesync.server import serve as run_server
from candlesync.service import Service
from candlesync.simulator.settings import SimulatorSettings


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
    _run(run_server, Service(settings_from(values)), bind)


@main.command()
@with_store
def owners(**values: Any) -> None:
    """Say which nodes share a store, and which of them owns which symbol."""
    settings = store_settings_from(values)
    if settings is None:
        raise click.UsageError("a node with its own memory owns all of its symbols; name a shared store: --store URL")
    _run(show_owners, settings, click.echo)


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

    def make_settings(rest_url: str, stream_url: str) -> Settings:
        return settings_from(values | {"rest_url": rest_url, "stream_url": stream_url})

    simulated = SimulatorSettings(seed=seed, minute_seconds=minute)
    _run(run_demo, make_settings, simulated, bind, click.echo)


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
