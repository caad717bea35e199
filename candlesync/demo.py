"""``candlesync demo``: the server against a simulated Binance, both in this process, over loopback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

import msgspec
import trio
import trio_websocket

from candlesync.config import Settings
from candlesync.server import serve
from candlesync.service import Service
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.serving import serve as serve_exchange
from candlesync.simulator.settings import SimulatorSettings
from candlesync.web.access import Token


class _Shown(msgspec.Struct):
    symbol: str
    interval: str
    time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    closed: bool


async def run_demo(
    make_settings: Callable[[str, str], Settings],
    simulated: SimulatorSettings,
    binds: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or SIGINT; ``make_settings`` is given the simulator's REST and stream URLs.

    ``say`` is told which addresses to open. Raises what `serve` raises.
    """
    exchange = Exchange(simulated)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(serve_exchange, exchange, listeners)
        host = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        service = Service(make_settings(f"http://{host}", f"ws://{host}"))
        async with trio.open_nursery() as serving:
            addresses = await serving.start(partial(_serve, serving.cancel_scope, service, binds))
            settings = service.settings
            _tell(say, addresses, settings, simulated, host)
            serving.start_soon(_show_candles, say, addresses[0], settings.symbols[0], settings.access.tokens)
        nursery.cancel_scope.cancel()


async def _serve(
    scope: trio.CancelScope,
    service: Service,
    binds: Sequence[str],
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    await serve(service, binds, task_status=task_status)
    scope.cancel()


async def _show_candles(say: Callable[[str], None], address: str, symbol: str, tokens: Sequence[Token]) -> None:
    """Show each candle that closes, as any client would see it: over the WebSocket."""
    url = f"{address.replace('http', 'ws', 1)}/ws/candles/{symbol}?replay=0"
    headers = [(b"Authorization", f"Bearer {token.text}".encode()) for token in tokens[:1]]
    with suppress(trio_websocket.ConnectionClosed, trio_websocket.HandshakeError):
        async with trio_websocket.open_websocket_url(url, extra_headers=headers) as socket:
            while True:
                candle = msgspec.json.decode(await socket.get_message(), type=_Shown)
                if candle.closed:
                    moment = datetime.fromtimestamp(candle.time, UTC)
                    say(
                        f"{candle.symbol} {candle.interval}  {moment:%Y-%m-%d %H:%M}  open {candle.open}"
                        f"  high {candle.high}  low {candle.low}  close {candle.close}  volume {candle.volume}"
                    )


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
        f"  simulator   http://{host} (POST /control/faults breaks it)\n"
        f"  check it    candlesync verify {addresses[0]} --rest-url http://{host} --stream-url ws://{host}\n"
        "Ctrl-C ends it."
    )
