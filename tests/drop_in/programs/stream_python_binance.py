"""python-binance: live candles of the socket manager, which connects again by itself. Argument: HOST:PORT."""

import asyncio
import json
import sys

from binance import AsyncClient, BinanceSocketManager

host = sys.argv[1]


async def main() -> None:
    """Follow for ever."""
    manager = BinanceSocketManager(AsyncClient())
    manager.STREAM_URL = f"ws://{host}/binance/"
    async with manager.kline_socket("BTCUSDT", "1m") as socket:
        while True:
            event = await socket.recv()
            if event["e"] == "error":
                print(event, file=sys.stderr)
            elif event["k"]["x"]:
                print(json.dumps([event["s"], [event["k"][name] for name in "tohlcvTqnVQ"]]), flush=True)


asyncio.run(main())
