"""The peer on several nodes: FastAPI over Redis, as it is built today.

The process that comes first reads Binance's stream; each update goes to Redis as one pipeline, into a list and out on a
channel, and every process sends what it hears on that channel to its clients. REST reads the list. Nothing takes over
from a process that dies, nothing that a process did not hear is read again, and a list is not checked for holes; that
is the difference to candlesync, not an oversight here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from redis.asyncio import Redis
from websockets.asyncio.client import connect

from . import market
from .fastapi_peer import history, live, send_to_all
from .peer_candle import Candle, candle_in, stream_url

_NAME = os.environ["PEER_NAME"]
_LIST, _OWNER, _CHANNEL = "peer:candles", "peer:owner", "peer:updates"

redis: Redis = Redis.from_url(os.environ["PEER_REDIS_URL"])
hearing = asyncio.Event()


async def ingest(following: asyncio.Event) -> None:
    """Read Binance's stream into Redis."""
    last = json.loads((await texts())[-1])["time"]
    async with connect(stream_url(), compression=None) as stream:
        following.set()
        async for message in stream:
            candle = candle_in(message)
            text = json.dumps(candle)
            pipeline = redis.pipeline(transaction=False)
            if candle["time"] == last:
                pipeline.lset(_LIST, -1, text)
            else:
                pipeline.rpush(_LIST, text)
                pipeline.ltrim(_LIST, -market.CANDLES, -1)
            pipeline.publish(_CHANNEL, text)
            await pipeline.execute()
            last = candle["time"]


async def texts() -> list[bytes]:
    """The candles as they are kept."""
    return cast("list[bytes]", await redis.lrange(_LIST, 0, -1))


async def hear() -> None:
    """Send what is published to every client of this process."""
    async with redis.pubsub(ignore_subscribe_messages=True) as channel:
        await channel.subscribe(_CHANNEL)
        hearing.set()
        async for message in channel.listen():
            await send_to_all(message["data"].decode())


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Load the history if no other process has, then follow."""
    async with AsyncExitStack() as stack:
        stack.push_async_callback(redis.aclose)
        _start(stack, asyncio.create_task(hear()))
        if await redis.set(_OWNER, _NAME, nx=True):
            await redis.rpush(_LIST, *(json.dumps(candle) for candle in await history()))
            following = asyncio.Event()
            _start(stack, asyncio.create_task(ingest(following)))
            await following.wait()
        yield


def _start(stack: AsyncExitStack, task: asyncio.Task[None]) -> None:
    async def end() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


app = FastAPI(lifespan=lifespan)
app.websocket("/ws/candles/{symbol}")(live)


@app.get("/ready")
async def ready() -> Response:
    """Whether it hears, and who reads Binance's stream."""
    owner = cast("bytes | None", await redis.get(_OWNER))
    owners = {market.SYMBOL: owner.decode()} if owner else {}
    return JSONResponse({"node": _NAME, "owners": owners}, 200 if hearing.is_set() else 503)


@app.get("/candles/parsed")
async def parsed() -> JSONResponse:
    """REST as it is written first: each candle is read into an object, and written again."""
    return JSONResponse([json.loads(text) for text in await texts()])


@app.get("/candles/plain", response_model=None)
async def plain() -> list[Candle]:
    """The same, written by FastAPI's own encoder."""
    return [json.loads(text) for text in await texts()]


@app.get("/candles/typed")
async def typed() -> list[Candle]:
    """The same, with a declared type, which FastAPI gives to pydantic's serializer."""
    return [json.loads(text) for text in await texts()]


@app.get("/candles/joined")
async def joined() -> Response:
    """REST without that: the texts as they are, with commas in between."""
    return Response(b"[" + b",".join(await texts()) + b"]", media_type="application/json")
