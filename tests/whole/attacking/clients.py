"""Those who attack: each kind is one visit, or one flood, by a client of its own; it tells how many inputs it sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import msgspec
import redis
import trio

from tests.store.redis_server import RedisServer
from tests.web.builders import frame, upgrade
from tests.whole.attacking import inputs

_ENDS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class Target:
    """The server, and the store that it trusts."""

    def __init__(self, host: str, store: RedisServer, prefix: str) -> None:
        self.host = host
        self.store = store
        self.prefix = prefix
        self.failures: list[str] = []
        """Answers that no client's fault explains."""

    async def connect(self) -> trio.SocketStream:
        name, _, port = self.host.rpartition(":")
        return await trio.open_tcp_stream(name, int(port))

    async def say(self, data: bytes, *, seconds: float = 1.0, then: bytes = b"") -> bytes:
        """What is answered to something, on a connection of its own; then, once something came, something more."""
        received = b""
        stream = await self.connect()
        try:
            with trio.move_on_after(seconds):
                await stream.send_all(data)
                if then:
                    received += await stream.receive_some()
                    await stream.send_all(then)
                while part := await stream.receive_some():
                    received += part
        except _ENDS:
            pass
        finally:
            await trio.aclose_forcefully(stream)
        return received

    def look_at(self, sent: bytes, answer: bytes) -> None:
        """Note an answer that says that the server has failed."""
        if answer.startswith(b"HTTP/1.1 500 ") or b'"code":"internal_error"' in answer or b"\x88\x02\x03\xf3" in answer:
            self.failures.append(f"{sent[:300]!r} was answered with {answer[:200]!r}")


Attack = Callable[[Target, Random], Awaitable[int]]


async def requests(target: Target, chance: Random) -> int:
    """Requests with whatever in their paths, parameters and headers."""
    for _ in range(10):
        made = inputs.request(chance)
        target.look_at(made, await target.say(made, seconds=0.5))
    return 10


async def pipelines(target: Target, chance: Random) -> int:
    """Many at once on one connection, whose answers are read or not."""
    made = b"".join(inputs.request(chance).replace(b"Connection: close\r\n", b"") for _ in range(20))
    await target.say(made, seconds=chance.choice((0.0, 0.3)))
    return 20


async def messages(target: Target, chance: Random) -> int:
    """What is said on WebSockets."""
    said = [inputs.message(chance).encode("utf-8", "surrogatepass") for _ in range(20)]
    made = upgrade(chance.choice(inputs.SOCKETS))
    target.look_at(b" ".join(said), await target.say(made, then=b"".join(map(frame, said)), seconds=0.3))
    return 20


async def odd_frames(target: Target, chance: Random) -> int:
    """Frames that are none, compressed ones that were not agreed on, and handshakes that are none."""
    for _ in range(5):
        await target.say(inputs.handshake(chance), then=inputs.frames(chance), seconds=0.2)
    return 5


async def http2(target: Target, chance: Random) -> int:
    """HTTP/2 that is none."""
    for _ in range(5):
        await target.say(inputs.http2(chance), seconds=0.1)
    return 5


FLOODS = {
    "ping": frame(b"", 9),
    "pong": frame(b"", 10),
    "piece": b"\x00\x81" + bytes(4) + b"a",
    "message": frame(b""),
    "subscribe": frame('{"op":"subscribe","symbol":"BTCUSDT"}') + frame('{"op":"unsubscribe","symbol":"BTCUSDT"}'),
    "settings": b"\0\0\0\4\0\0\0\0\0",
    "pings of HTTP/2": b"\0\0\x08\6\0\0\0\0\0" + bytes(8),
    "priorities": b"\0\0\5\2\0\0\0\0\3" + b"\0\0\0\1\1",
}


async def floods(target: Target, chance: Random) -> int:
    """One thing a hundred thousand times, by a client that reads or does not."""
    name = chance.choice(list(FLOODS))
    piece = FLOODS[name]
    is_http2 = piece in (FLOODS["settings"], FLOODS["pings of HTTP/2"], FLOODS["priorities"])
    first = inputs.http2(Random(0))[:33] if is_http2 else upgrade(chance.choice(inputs.SOCKETS[:3]))
    block = piece * (1 + 20_000 // len(piece))
    sent = 0
    stream = await target.connect()
    try:
        with trio.move_on_after(2):
            await stream.send_all(first)
            await stream.receive_some()
            if name == "piece":
                await stream.send_all(b"\x01\x80" + bytes(4))
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    try:
                        while await stream.receive_some():
                            pass
                    except _ENDS:
                        pass

                if chance.random() < 0.7:
                    nursery.start_soon(read)
                while sent < 100_000:
                    await stream.send_all(block)
                    sent += len(block) // len(piece)
                nursery.cancel_scope.cancel()
    except* _ENDS:
        pass
    finally:
        await trio.aclose_forcefully(stream)
    return sent


async def dawdlers(target: Target, chance: Random) -> int:
    """Heads and bodies that come byte by byte, or never end, or whose client has closed its half."""
    stream = await target.connect()
    try:
        with trio.move_on_after(3):
            match chance.randrange(4):
                case 0:
                    for byte in inputs.request(chance)[:60]:
                        await stream.send_all(bytes([byte]))
                        await trio.sleep(0.05)
                case 1:
                    await stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000)
                case 2:
                    await stream.send_all(b"GET /candles/BTCUSDT/1m HTTP/1.1\r\nHost: x\r\n\r\n")
                    await stream.send_eof()
                    await stream.receive_some()
                case _:
                    head = b"POST /candles/NOSUCH/1m HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
                    await stream.send_all(head + b"Transfer-Encoding: chunked\r\n\r\n")
                    for _ in range(100):
                        await stream.send_all(b"ffff\r\n" + b"\x1f\x8b" * 32_767 + b"a\r\n")
    except _ENDS:
        pass
    finally:
        await trio.aclose_forcefully(stream)
    return 1


def _thing(chance: Random, depth: int = 0) -> object:
    if depth < 3 and chance.random() < 0.4:
        return [_thing(chance, depth + 1) for _ in range(chance.randrange(12))]
    return chance.choice((None, True, -1, 0, 1, 2**60, 1.5, "", "1m", "life0", "é", "x" * 5000, b"\xff", {"a": 1}))


def noise(chance: Random) -> bytes:
    """Bytes that are not ours; many are MessagePack with our tags."""
    if chance.random() < 0.3:
        return chance.randbytes(chance.choice((0, 1, 9, 100, 100_000)))
    return msgspec.msgpack.encode(
        [chance.choice((1, 2, 3, 4, 5)), *(_thing(chance) for _ in range(chance.randrange(14)))]
    )


async def announcements(target: Target, chance: Random) -> int:
    """Noise on the store's channels, those of the chart's own symbol too."""
    with target.store.client() as client:
        for _ in range(50):
            symbol = chance.choice(("BTCUSDT", "ETHUSDT", "nodes", "", "x" * 500, f"X{chance.randrange(10**6)}"))
            client.publish(f"{target.prefix}@0:{{{symbol}}}", noise(chance))
            await trio.lowlevel.checkpoint()
    return 50


def overwrite(client: redis.Redis, key: str, chance: Random) -> None:
    """Write noise where something of ours stands, in one place or in all of it."""
    kind = client.type(key)
    match chance.randrange(5):
        case 0:
            client.set(key, noise(chance))
        case 1:
            client.delete(key)
            client.rpush(key, *(noise(chance) for _ in range(3)))
        case _ if kind == b"hash":
            field = chance.choice([*client.hkeys(key), b"x"])
            client.hset(key, field, noise(chance))
        case _ if kind == b"list":
            client.execute_command("LSET", key, chance.randrange(int(client.llen(key))), noise(chance))
        case _:
            client.delete(key)
            client.hset(key, "format", chance.choice(("0", "2", "x" * 100)))


async def stored(target: Target, chance: Random) -> int:
    """Noise in the keys of a symbol; gone again after a moment, as an operator would have it."""
    keys = [f"{target.prefix}:{{ETHUSDT}}:{part}" for part in ("1m:meta", "1m:candles", "fence", "lease")]
    with target.store.client() as client:
        for _ in range(4):
            key = chance.choice(keys)
            try:
                overwrite(client, key, chance)
            except redis.ResponseError:
                client.delete(key)  # of another type by now
            await trio.sleep(0.1)
        client.delete(*keys)
    return 4


KINDS: dict[str, Attack] = {
    "requests": requests,
    "pipelined requests": pipelines,
    "messages": messages,
    "frames and handshakes": odd_frames,
    "HTTP/2": http2,
    "frames of floods": floods,
    "dawdlers": dawdlers,
    "announcements": announcements,
    "writes to the store": stored,
}
"""By what is counted."""
