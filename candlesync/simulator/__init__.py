"""A Binance that runs on loopback, for the demo and the tests."""
