"""``candlesync verify``: checks a running server from outside, against Binance itself.

It takes nothing on trust that it could ask: it knows of the server what the client contract promises (design, section
3), and shares with it no code but the calendar of intervals and the ways to ask Binance and to open a WebSocket.
"""
