"""ccxt: the candles of a range, page by page. Arguments: HOST:PORT, the first and the last open time (ms)."""

import json
import sys
import time

import ccxt

host, since, until = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
exchange = ccxt.binance({"options": {"fetchMarkets": {"types": ["spot"]}}})
exchange.urls["api"]["public"] = f"http://{host}/binance/api/v3"
while since <= until:
    try:
        candles = exchange.fetch_ohlcv("BTC/USDT", "1m", since, 700, {"until": until})
    except ccxt.NetworkError as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
        continue
    for candle in candles:
        print(json.dumps(["BTCUSDT", candle]))
    since = candles[-1][0] + 60_000
