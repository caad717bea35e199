"""What clients send that no client should: made by chance, from a seed."""

from __future__ import annotations

import json
from random import Random
from typing import Any
from urllib.parse import quote

from tests.web.builders import frame, upgrade

SECRET = "OpenSesame123"
"""Shown as a token now and then: it must not be found in any log."""

SYMBOLS = [
    *(
        "BTCUSDT",
        "btcusdt",
        "ETHUSDT",
        "NOSUCH",
        "",
        ".",
        "..",
        "-",
        "_",
        "../../etc/passwd",
        "BTC/USDT",
        "BTCUSDT\r\nX: y",
    ),
    *(
        "*",
        "?",
        "[a-z]*",
        "{BTCUSDT}",
        "{}",
        "}{",
        "BTCUSDT}:fence",
        "candlesync:{BTCUSDT}:fence",
        "a" * 51,
        "A" * 5000,
    ),
    *(
        "BTCU\u017fDT",
        "BTCUSD\u0130",
        "\ufb00USDT",
        "ﬃ",
        "Ⅷ",
        "\u202eTDSUCTB",
        "\x00",
        "BTC\x00USDT",
        "%00",
        "%2e%2e%2f",
    ),
    *(
        "';--",
        "<script>",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "BTCUSDT&signature=x",
        "BTCUSDT?x",
        "BTCUSDT#",
        "BTCUSDT@kline_1m",
    ),
    *("\ud800", "🙈", "BTCUSDT ", " BTCUSDT", "BTC\tUSDT", "NaN", "null", "0", "-1", "1e999"),
]
VALUES = [
    *(
        "1",
        "0",
        "-1",
        "5",
        "1000",
        "1001",
        "99999999999",
        "1e3",
        "NaN",
        "Infinity",
        "0x10",
        "\u0661",
        "9" * 400,
        "",
        " ",
        "+1",
    ),
    *(
        "1m",
        "1M",
        "5m",
        "7m",
        "1s",
        "m",
        "1m\r\n",
        "true",
        "null",
        "[]",
        "{}",
        "life0-1",
        "a-1",
        "a" * 33 + "-1",
        "-",
        "é-1",
    ),
    *("1700000000", "1700000000000", "-1700000000", "%", "%zz", "%00", "\x00", "a;b", "a&b=c", '"', "'", "../..", "🙈"),
]
NAMES = [
    *(
        "limit",
        "before",
        "interval",
        "replay",
        "since",
        "position",
        "symbol",
        "symbols",
        "startTime",
        "endTime",
        "timeZone",
    ),
    *(
        "from",
        "to",
        "countback",
        "resolution",
        "query",
        "type",
        "streams",
        "token",
        "signature",
        "apiKey",
        "limit[]",
        "",
        "é",
    ),
]
PATHS = [
    *("/candles/{s}/{v}", "/candles/{s}", "/candles/{s}/1m", "/symbols", "/health", "/ready", "/metrics", "/", "/docs"),
    *(
        "/openapi.json",
        "/static/{s}",
        "/static/../{s}",
        "/static/page.js/../../{v}",
        "/static/%2e%2e/{s}",
        "/{s}",
        "//",
        "//{s}",
    ),
    *(
        "/udf/history",
        "/udf/config",
        "/udf/symbols",
        "/udf/search",
        "/udf/time",
        "/udf/{s}",
        "/ws/candles",
        "/ws/candles/{s}",
    ),
    *("/binance/api/v3/klines", "/binance/api/v3/uiKlines", "/binance/api/v3/exchangeInfo", "/binance/api/v3/time"),
    *("/binance/api/v3/ping", "/binance/api/v3/depth", "/binance/api/v3/trades", "/binance/api/v3/ticker/24hr"),
    *("/binance/api/v3/ticker/price", "/binance/api/v3/aggTrades", "/binance/api/v3/account", "/binance/sapi/v1/{s}"),
    *("/binance/api/v3/../../{s}", "/binance/{s}", "/binance/ws/{s}", "/binance/stream", "/binance/api/v3/klines/{s}"),
]
SOCKETS = [
    "/ws/candles",
    "/ws/candles/BTCUSDT",
    "/binance/ws",
    "/binance/stream",
    "/binance/ws/0",
    "/binance/ws/btcusdt@kline_1m",
]
METHODS = ["GET"] * 12 + [
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "TRACE",
    "CONNECT",
    "PRI",
    "get",
    "X" * 30,
]


def text(chance: Random) -> str:
    """Something for a place where a symbol or a value belongs."""
    if chance.random() < 0.15:
        return "".join(
            chr(chance.choice((chance.randrange(128), chance.randrange(0xD7FF)))) for _ in range(chance.randrange(40))
        )
    return chance.choice(SYMBOLS if chance.random() < 0.5 else VALUES)


def _escaped(part: str, chance: Random) -> str:
    """As it stands in a URL: escaped, or as it is where HTTP lets it pass."""
    data = part.encode("utf-8", "surrogatepass")
    if chance.random() < 0.1:
        return "".join(f"%{byte:02X}" for byte in data)
    return quote(data, safe=chance.choice(("", "/", "/%?&=#{}*[]:@")))


def target(chance: Random) -> str:
    """A path with a query."""
    path = chance.choice(PATHS).format(s=_escaped(text(chance), chance), v=_escaped(text(chance), chance))
    pairs = [
        f"{_escaped(chance.choice(NAMES), chance)}={_escaped(text(chance), chance)}" for _ in range(chance.randrange(5))
    ]
    if chance.random() < 0.1:
        pairs.append(f"token={SECRET}")
    if chance.random() < 0.5:
        pairs.append(f"symbol={_escaped(chance.choice(SYMBOLS), chance)}")
    return f"{path}?{'&'.join(pairs)}" if pairs else path


HEADERS = [
    *(
        "Content-Length: 0",
        "Content-Length: 5",
        "Content-Length: -1",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
    ),
    *("Expect: 100-continue", "Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade", "Connection: close, \xff"),
    *(
        "Accept-Encoding: gzip;q=9, \xff",
        'If-None-Match: "',
        'If-None-Match: *, W/"x"',
        "Range: bytes=0-,0-,-1",
        "Cookie: \xff=",
    ),
    *("Origin: null", "Origin: \xff", "X-Forwarded-For: 1.2.3.4, \xff, unknown", 'Forwarded: for="[::1]"', "Host: y"),
    *("Content-Encoding: gzip", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: x", f"Authorization: Bearer {SECRET}"),
    *(
        "X-MBX-APIKEY: abc",
        "X-MBX-TIME-UNIT: microsecond",
        "Accept: application/sbe",
        "A: " + "b" * 9000,
        " folded: x",
        "no colon",
    ),
    *(
        "Access-Control-Request-Headers: \xff",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "Te: trailers",
        "Proxy: x",
        "\x00: x",
    ),
]


def request(chance: Random) -> bytes:
    """One request, well formed or not quite."""
    lines = [f"{chance.choice(METHODS)} {target(chance)} HTTP/1.1", "Host: x"]
    lines += [chance.choice(HEADERS) for _ in range(chance.choice((0, 0, 0, 1, 2, 4)))]
    body = chance.choice(("", "", "", "0\r\n\r\n", "hello", "\x1f\x8b" + "a" * 100, "a" * 5000))
    made = bytearray("\r\n".join([*lines, "Connection: close", "", body]).encode("latin-1", "replace"))
    if chance.random() < 0.2:
        for _ in range(chance.randrange(1, 4)):
            made[chance.randrange(len(made))] = chance.randrange(256)
    return bytes(made[: chance.randrange(1, len(made))] if chance.random() < 0.05 else made)


def _anything(chance: Random, depth: int = 0) -> Any:
    match chance.randrange(9 if depth < 4 else 6):
        case 0:
            return chance.choice((None, True, False))
        case 1:
            return chance.choice((0, -1, 2**53, 2**64, 10**400, 1.5, -0.0, 1e308))
        case 2 | 3 | 4 | 5:
            return text(chance)
        case 6 | 7:
            return [_anything(chance, depth + 1) for _ in range(chance.randrange(5))]
        case _:
            return {text(chance): _anything(chance, depth + 1) for _ in range(chance.randrange(5))}


def message(chance: Random) -> str:
    """What is said on a WebSocket."""
    made: Any = {
        "op": chance.choice(("subscribe", "subscribe", "unsubscribe", "ping", text(chance))),
        "symbol": chance.choice(("BTCUSDT", "ETHUSDT", text(chance), _anything(chance))),
        "interval": chance.choice(("1m", "5m", text(chance), _anything(chance))),
        "id": _anything(chance),
    }
    if chance.random() < 0.4:
        made[chance.choice(("replay", "since", "position"))] = chance.choice((0, 5, 1000, 1e9, _anything(chance)))
    if chance.random() < 0.4:
        streams = chance.choice(
            (["btcusdt@kline_1m"], [f"{text(chance).lower()}@kline_{text(chance)}"], _anything(chance))
        )
        methods = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY", text(chance))
        made = {"method": chance.choice(methods), "params": streams, "id": chance.choice((1, _anything(chance)))}
    match chance.randrange(12):
        case 0:
            return text(chance)
        case 1:
            return "[" * chance.randrange(5000)
        case 2:
            return json.dumps(_anything(chance))
        case 3:
            return json.dumps(made)[: chance.randrange(60)]
    return json.dumps(made)


def frames(chance: Random) -> bytes:
    """Frames, with every bit that may be wrong, wrong now and then."""
    made = b""
    for _ in range(chance.randrange(1, 8)):
        if chance.random() < 0.6:
            one = bytearray(frame(message(chance).encode("utf-8", "surrogatepass"), 1))
        else:
            one = bytearray(frame(chance.randbytes(chance.choice((0, 1, 2, 125, 126, 3000))), chance.randrange(16)))
        if chance.random() < 0.3:
            one[0] ^= 1 << chance.randrange(8)  # FIN, RSV1 (as of compression) to RSV3, the opcode
        if chance.random() < 0.1:
            one[1] ^= 1 << chance.randrange(8)  # the mask, the length
        made += one
    return made


def handshake(chance: Random) -> bytes:
    """Of a WebSocket somewhere; compression and the like are offered, and forced in `frames`."""
    offers = ("permessage-deflate", "permessage-deflate; server_max_window_bits=8", "x-webkit-deflate-frame", ";;,=")
    extras = [f"Sec-WebSocket-Extensions: {chance.choice(offers)}"] if chance.random() < 0.5 else []
    path = (
        chance.choice(SOCKETS) if chance.random() < 0.7 else "/".join(("/ws/candles", _escaped(text(chance), chance)))
    )
    return upgrade(path, *extras)


def http2(chance: Random) -> bytes:
    """What begins as HTTP/2 and goes on as it likes."""
    made = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
    for _ in range(chance.randrange(1, 40)):
        payload = chance.randbytes(chance.choice((0, 1, 4, 5, 6, 8, 60)))
        stream = chance.choice((0, 1, 3, 5, 2**31 - 1))
        made += (
            len(payload).to_bytes(3, "big")
            + bytes([chance.randrange(12), chance.randrange(256)])
            + stream.to_bytes(4, "big")
        )
        made += payload
    return made
