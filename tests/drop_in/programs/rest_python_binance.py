"""python-binance: the candles of a range. Arguments: HOST:PORT, the first and the last open time (ms)."""

import json
import sys
import time

from binance.client import Client
from binance.exceptions import BinanceAPIException

host, since, until = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = Client(ping=False)
client.API_URL = f"http://{host}/binance/api"
rows = None
while rows is None:
    try:
        rows = client.get_historical_klines("BTCUSDT", "1m", since, until)
    except BinanceAPIException as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
for row in rows:
    print(json.dumps(["BTCUSDT", row]))
