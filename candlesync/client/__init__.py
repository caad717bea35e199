"""A gapless feed of candles for bots and programs, under Trio.

    async with follow("BTCUSDT", "1m", url="http://127.0.0.1:8000") as feed:
        async for candle in feed.closed():
            print(candle.time, candle.close)

It shares with the server the calendar of intervals, the errors, and how a WebSocket is opened, and no other code.
"""

from candlesync.client.candles import Candle, Candles, Change
from candlesync.client.feed import Feed, State, follow
from candlesync.errors import FeedError

__all__ = ["Candle", "Candles", "Change", "Feed", "FeedError", "State", "follow"]
