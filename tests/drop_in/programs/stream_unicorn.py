"""unicorn-binance-websocket-api: live candles of two symbols; it connects again by itself. Argument: HOST:PORT."""

import json
import sys
import time
from typing import Any

from unicorn_binance_websocket_api import BinanceWebSocketApiManager

host = sys.argv[1]


def show(message: dict[str, Any]) -> None:
    """Print a closed candle."""
    bar = message.get("data", {}).get("k")
    if bar and bar["x"]:
        print(json.dumps([bar["s"], [bar[name] for name in "tohlcvTqnVQ"]]), flush=True)


manager = BinanceWebSocketApiManager(
    exchange="binance.com", websocket_base_uri=f"ws://{host}/binance/", output_default="dict"
)
manager.create_stream("kline_1m", ["btcusdt", "ethusdt"], process_stream_data=show)
while not manager.is_manager_stopping():
    time.sleep(0.1)
