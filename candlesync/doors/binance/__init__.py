"""Binance's own API, over the verified store."""
