"""binance-sdk-spot: live candles of two symbols on one connection, made again when it ends. Argument: HOST:PORT."""

import asyncio
import json
import sys

from binance_common.configuration import ConfigurationWebSocketStreams
from binance_sdk_spot.spot import Spot
from binance_sdk_spot.websocket_streams.models import KlineResponse

host = sys.argv[1]


def show(event: KlineResponse) -> None:
    """Print a closed candle."""
    if event.k.x:
        print(json.dumps([event.s, [getattr(event.k, name) for name in "tohlcvTqnVQ"]]), flush=True)


async def main() -> None:
    """Follow for ever."""
    client = Spot(config_ws_streams=ConfigurationWebSocketStreams(stream_url=f"ws://{host}/binance"))
    while True:
        ended = asyncio.Event()
        connection = await client.websocket_streams.create_connection()
        connection.on_connection("close", ended.set)
        for symbol in ("btcusdt", "ethusdt"):
            stream = await connection.kline(symbol, "1m")
            stream.on("message", show)
        await ended.wait()
        print("ended", file=sys.stderr)


asyncio.run(main())
