"""The bench behind ``scripts/bench``: candlesync and its peers, measured in one run on one machine.

    upstream ──frames──▶ server under test ──messages──▶ crowd, REST load
    (a process)          (a process)                     (this process)

Beside that it measures two nodes with one Redis (`nodes` draws it), and the store in Redis by itself (`store`).

The upstream is a small Binance whose every frame is news: one forming candle with ever more trades, whose volume is the
number of the update. So each message that a client gets tells which update it carries, whoever sent it, and when it
left the upstream is known. The load is written on raw sockets, to cost less than any server that it measures; how much
of a core it took stands in the report, and a figure that it limited is marked.
"""
