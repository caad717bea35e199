"""ccxt.pro: live candles, each taken as closed when the next one has begun. Argument: HOST:PORT."""

import asyncio
import json
import sys

import ccxt.pro

host = sys.argv[1]


async def main() -> None:
    """Follow for ever."""
    exchange = ccxt.pro.binance({"options": {"defaultType": "spot", "fetchMarkets": {"types": ["spot"]}}})
    exchange.urls["api"]["public"] = f"http://{host}/binance/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"ws://{host}/binance/stream"
    newest = None
    while True:
        try:
            candles = await exchange.watch_ohlcv("BTC/USDT", "1m")
        except ccxt.NetworkError as error:
            print(error, file=sys.stderr)
            await asyncio.sleep(3)
            continue
        for candle in candles:
            if newest is not None and newest[0] < candle[0]:
                print(json.dumps(["BTCUSDT", newest]), flush=True)
            newest = candle


asyncio.run(main())
