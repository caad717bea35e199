"""The only place that speaks Binance's language: klines, streams, request weight."""
