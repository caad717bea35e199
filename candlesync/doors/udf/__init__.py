"""TradingView's UDF, by which the charting library's ``UDFCompatibleDatafeed`` is fed: JSON over HTTP, below ``/udf``.

``config`` says what there is; ``search`` and ``symbols`` find a symbol and describe it; ``history`` gives its bars, a
column for each kind of value; ``time`` is the exchange's. Marks, quotes and requests of whole groups of symbols are
not supported, and ``config`` says so. Errors are ``{"s":"error","errmsg":"…"}`` with the status that is right: the
library's own adapter reads the body whatever the status, and all else on the way (caches, proxies, logs, other
clients) goes by the status.

Sources: TradingView's charting library documentation, "UDF adapter", "Datafeed API, required methods" and "Symbology"
(the interfaces ``LibrarySymbolInfo`` and ``PeriodParams``); and what its adapter, which comes with the library, asks.
"""
