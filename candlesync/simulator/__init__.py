"""A Binance that runs on loopback, for the demo, the tests and the benchmark.

Built from Binance's public documentation (binance-spot-api-docs) and from recorded data, not from what our own adapter
expects. `exchange.Exchange` is the whole of it without a way in; `app` and `serving` are its HTTP and WebSockets,
`memory` its WebSockets within a process, ``python -m candlesync.simulator`` a process of its own.

Known to be unlike Binance: there is no limit on new connections (300 in 5 minutes), the streams are those of klines
in UTC alone, and on real sockets Hypercorn pings at once and then every 20 seconds but does not tell whether a pong
came (in memory, a client that does not answer is cut after a minute).
"""
