"""trio-websocket alone: ``python -m benchmark.stream_peer URL`` reads a stream, and keeps nothing of it.

It opens the connection with the same settings as candlesync does, and answers each line on its standard input with how
many messages it has read. It ends when its standard input does.
"""

from __future__ import annotations

import json
import sys

import trio

from candlesync.binance.stream import StreamSettings
from candlesync.websocket import open_websocket

_SETTINGS = StreamSettings()


class _Reader:
    def __init__(self) -> None:
        self.messages = 0

    async def read(self, url: str, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_websocket(
            url, message_queue_size=_SETTINGS.message_queue_size, max_message_size=_SETTINGS.max_message_size
        ) as connection:
            task_status.started()
            while True:
                await connection.get_message()
                self.messages += 1


async def _run(url: str) -> None:
    reader = _Reader()
    async with trio.open_nursery() as nursery:
        await nursery.start(reader.read, url)
        _say(reader)
        async for _ in trio.wrap_file(sys.stdin):
            _say(reader)
        nursery.cancel_scope.cancel()


def _say(reader: _Reader) -> None:
    print(json.dumps({"messages": reader.messages}), flush=True)


if __name__ == "__main__":
    trio.run(_run, sys.argv[1])
