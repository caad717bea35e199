"""binance-sdk-spot: the candles of a range, page by page. Arguments: HOST:PORT, first and last open time (ms)."""

import json
import sys
import time

from binance_common.configuration import ConfigurationRestAPI
from binance_common.errors import ServerError, TooManyRequestsError
from binance_sdk_spot.spot import Spot

host, since, until = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
client = Spot(config_rest_api=ConfigurationRestAPI(base_path=f"http://{host}/binance", timeout=10_000))
while since <= until:
    try:
        rows = client.rest_api.klines("BTCUSDT", "1m", start_time=since, end_time=until, limit=600).data()
    except (ServerError, TooManyRequestsError) as error:
        print(error, file=sys.stderr)
        time.sleep(0.5)
        continue
    for row in rows:
        print(json.dumps(["BTCUSDT", row]))
    since = rows[-1][0] + 60_000
