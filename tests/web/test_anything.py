"""Whatever a client says, on a WebSocket or in a request: it is answered in our words, and nobody else hears of it."""

from __future__ import annotations

import json
import re
from random import Random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from candlesync.core.candle import Series
from tests.builders import candle, minute
from tests.web.builders import Socket, Web, commit
from tests.whole.attacking import inputs

SYMBOL = re.compile(r"[A-Z0-9._-]{1,50}", re.ASCII).fullmatch

TEXTS = st.text(max_size=20) | st.sampled_from(inputs.SYMBOLS + inputs.VALUES)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
REQUESTS = st.fixed_dictionaries(
    {"op": st.sampled_from(["subscribe", "unsubscribe", "ping"]) | JSON},
    optional={
        "symbol": st.sampled_from(["BTCUSDT", "btcusdt"]) | JSON,
        "interval": st.sampled_from(["1m", "5m"]) | JSON,
        "id": JSON,
        "replay": st.integers(-1, 1001) | JSON,
        "since": st.integers(0, 2**40) | JSON,
        "position": st.sampled_from(["life0-1", "life0-0", "life0-5", "x-1"]) | JSON,
    },
)
MESSAGES = st.lists(
    st.one_of(REQUESTS.map(json.dumps), JSON.map(json.dumps), st.text(max_size=30), st.integers().map(str)),
    min_size=8,
    max_size=40,
)


def asked_for(asked: list[Series]) -> None:
    """Nothing was asked for that could be another key, path or channel than that of a symbol."""
    assert all(SYMBOL(series.symbol) for series in asked)


async def hear(socket: Socket) -> list[dict[str, object]]:
    messages = await socket.rest()
    for message in messages:
        assert message.get("op", "candle") in {"candle", "subscribed", "unsubscribed", "pong", "state", "error"}
        assert message.get("code") != "internal_error"
        assert len(json.dumps(message)) < 1500, "what a client says is not given back at any length"
    return messages


@settings(max_examples=20)
@given(MESSAGES, st.sampled_from(["/ws/candles", "/ws/candles/BTCUSDT?replay=0"]))
def test_whatever_is_said_is_answered_and_nobody_else_hears_of_it(said: list[str], path: str) -> None:
    async def main() -> None:
        web = Web(message_rate=0.0)
        topic = web.topic()
        async with web.socket("/ws/candles/BTCUSDT?replay=0") as other, web.socket(path) as socket:
            assert await other.rest() == []
            for message in said:
                await socket.send(message)
                heard = await hear(socket)
                assert heard, "each message has an answer"
            commit(topic, candle(minute(10)))
            (shown,) = await other.rest()
            assert shown["rev"] == 2
            assert not socket.closed.is_set()
            asked_for(web.supervisor.asked)

    trio.run(main, clock=MockClock(autojump_threshold=0))


@settings(max_examples=15)
@given(st.integers(0, 2**32))
def test_whatever_is_asked_is_answered_in_our_words(seed: int) -> None:
    async def main() -> None:
        web = Web()
        web.topic()
        chance = Random(seed)
        for _ in range(20):
            target = inputs.target(chance)
            method = chance.choice([method for method in inputs.METHODS if method.isupper() and len(method) < 10])
            answer = await web.asked(target.partition("#")[0], method=method, client="127.0.0.1")
            assert answer.status < 500 or answer.status == 503, (method, target, answer.body[:200])
            if answer.status >= 400 and answer.body and method != "HEAD":
                error = json.loads(answer.body)
                is_binances = target.startswith("/binance") and error.keys() == {"code", "msg"}
                assert is_binances or "error" in error or error.get("s") == "error", (method, target, error)
                assert len(answer.body) < 2000
                assert "\n" not in answer.body.decode()
        asked_for(web.supervisor.asked)

    trio.run(main, clock=MockClock(autojump_threshold=0))
