"""candlesync: gap-free candles from Binance to charts."""

__version__ = "0.1.0"
