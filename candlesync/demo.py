"""``candlesync demo``: the server against a simulated Binance, both in this process, over loopback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import trio
from rich.console import Console

from candlesync.client import follow
from candlesync.config import Settings
from candlesync.errors import FeedError
from candlesync.server import serve
from candlesync.service import Service
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.serving import serve as serve_exchange
from candlesync.simulator.settings import SimulatorSettings
from candlesync.web.access import Token


async def run_demo(
    make_settings: Callable[[str, str], Settings],
    simulated: SimulatorSettings,
    binds: Sequence[str],
    say: Callable[[str], None],
    *,
    console: Console | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; ``make_settings`` is given the simulator's REST and stream URLs.

    ``say`` is told which addresses to open; ``console`` is `serve`'s. Raises what `serve` raises.
    """
    exchange = Exchange(simulated)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(serve_exchange, exchange, listeners)
        host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        service = Service(make_settings(f"http://{host}", f"ws://{host}"))
        async with trio.open_nursery() as serving:
            addresses = await serving.start(partial(_serve, serving.cancel_scope, service, binds, console))
            settings = service.settings
            _tell(say, addresses, settings, simulated, host)
            if addresses[0].startswith("http"):  # and not a UNIX socket
                serving.start_soon(_show_candles, say, addresses[0], settings.symbols[0], settings.access.tokens)
        nursery.cancel_scope.cancel()


async def _serve(
    scope: trio.CancelScope,
    service: Service,
    binds: Sequence[str],
    console: Console | None,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await serve(service, binds, console=console, task_status=task_status)
    scope.cancel()


async def _show_candles(say: Callable[[str], None], address: str, symbol: str, tokens: Sequence[Token]) -> None:
    """Show each candle that closes, as any client would see it; as long as the server is willing."""
    token = tokens[0].text if tokens else ""
    with suppress(FeedError):
        # Its own server says by itself how it is.
        async with follow(symbol, url=address, token=token, load=1, on_state=lambda *_: None) as feed:
            async for candle in feed.closed():
                say(str(candle))


def _tell(
    say: Callable[[str], None], addresses: list[str], settings: Settings, simulated: SimulatorSettings, host: str
) -> None:
    symbol = settings.symbols[0]
    socket = addresses[0].replace("http", "ws", 1)
    say(
        f"candlesync demo: a simulated Binance whose minutes last {simulated.minute_seconds:g} s\n"
        f"  chart       {addresses[0]}/?symbol={symbol}\n"
        f"  REST        {addresses[0]}/candles/{symbol}/1m\n"
        f"  WebSocket   {socket}/ws/candles/{symbol}\n"
        f"  for bots    {addresses[0]}/binance instead of {settings.venue.rest_urls[0]}\n"
        f"  simulator   http://{host} (POST /control/faults breaks it)\n"
        f"  check it    candlesync verify {addresses[0]} --rest-url http://{host} --stream-url ws://{host}\n"
        "Ctrl-C ends it."
    )
