"""Binance's answers and frames made into noise on their way, in virtual time: none of it reaches a chart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx
import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.service import Service
from candlesync.simulator.exchange import Exchange
from candlesync.simulator.settings import SimulatorSettings
from candlesync.websocket import Connection
from tests.chart import Chart
from tests.whole.charts import stays
from tests.whole.world import Network, World

ODD: list[Any] = [
    *(
        None,
        True,
        -1,
        2**63,
        10**300,
        1.5,
        "",
        "NaN",
        "1e5",
        "-1",
        "0x1",
        "1" * 500,
        "é",
        [],
        {},
        [[]],
        "1.0\n",
        " 1",
        "\u0661",
    ),
    *(10**14, 10**16, "Infinity", {"e": "kline"}, [0] * 12, "<script>", "${x}", "\x00"),
]
"""What stands for a value of Binance's, and is none of its kind: never a good price, time or count."""
EVENTS = [
    '{"result":null,"id":1}',
    '{"result":null,"id":999999}',
    '{"error":{"code":2,"msg":"x"},"id":1}',
    '{"error":{"code":2,"msg":"' + "y" * 5000 + '"},"id":null}',
    '{"e":"trade","s":"BTCUSDT"}',
    '{"stream":"btcusdt@kline_1m","data":{"e":"serverShutdown"}}',
    *("", "null", "[]", "{}", "0", '"', "[" * 5000, '{"k":' * 900, "\ufeff{}", "\x00", '{"stream":"x","data":null}'),
]


def spoil(value: Any, random: Random) -> Any:
    """A JSON value with something odd in one place of it."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        return {**value, key: spoil(value[key], random)}
    if isinstance(value, list) and value and random.random() < 0.9:
        at = random.randrange(len(value))
        return [*value[:at], spoil(value[at], random), *value[at + 1 :]]
    return random.choice([odd for odd in ODD if type(odd) is not type(value)] or ODD)


def noise(text: str, random: Random) -> str:
    """Something in place of a text of Binance's; never another one that could be true."""
    match random.randrange(5):
        case 0:
            return text[: random.randrange(len(text))]
        case 1:
            return random.choice(EVENTS)
        case 2:
            return "".join(chr(random.randrange(1, 0xD7FF)) for _ in range(random.randrange(200)))
        case 3:
            return text[:-1] + random.choice(("]", "}", ",", "", '"', text))
        case _:
            return json.dumps(spoil(json.loads(text), random))


class Noise(Network):
    """A way to the exchange on which much is spoiled, as long as it is ``loud``."""

    def __init__(self, exchange: Exchange, random: Random, spoil_frame: Callable[[str, Random], str]) -> None:
        super().__init__(exchange)
        self.random = random
        self.spoil_frame = spoil_frame
        self.loud = False
        self.spoiled = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if not self.loud or self.random.random() < 0.5:
            return response
        self.spoiled += 1
        body = noise((await response.aread()).decode(), self.random).encode("utf-8", "replace")
        return httpx.Response(self.random.choice((200, 200, 200, 400, 404, 500, 302)), content=body)

    @asynccontextmanager
    async def connect(self, url: str, **options: Any) -> AsyncIterator[Connection]:
        async with super().connect(url, **options) as connection:
            yield _Noisy(connection, self)


class _Noisy:
    def __init__(self, connection: Connection, network: Noise) -> None:
        self._connection = connection
        self._network = network
        self.send_message, self.ping = connection.send_message, connection.ping
        self._next: str | bytes | None = None

    async def get_message(self) -> str | bytes:
        network, after = self._network, self._next
        if after is not None:
            self._next = None
            return after
        message = await self._connection.get_message()
        if network.loud and isinstance(message, str) and network.random.random() < 0.4:
            network.spoiled += 1
            spoiled = network.spoil_frame(message, network.random)
            if network.random.random() < 0.7:
                self._next = message  # beside it; otherwise in its place
            return spoiled if network.random.random() < 0.95 else spoiled.encode("utf-8", "replace")
        return message


@asynccontextmanager
async def noisy_world(seed: int, spoil_frame: Callable[[str, Random], str]) -> AsyncIterator[tuple[World, Noise]]:
    exchange = Exchange(SimulatorSettings(minute_seconds=60.0))
    network = Noise(exchange, Random(seed), spoil_frame)
    settings = Settings(symbols=("BTCUSDT",))
    service = Service(settings, client=network.client(settings), connect=network.connect)
    async with trio.open_nursery() as nursery:
        await nursery.start(exchange.run)
        async with trio.open_nursery() as service_nursery:
            await service_nursery.start(service.run)
            yield World(network, service, service_nursery), network
            service_nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("seed", range(3))
async def test_noise_from_binance_reaches_no_chart_and_kills_nothing(seed: int, autojump_clock: MockClock) -> None:
    async with noisy_world(seed, noise) as (world, network):
        await world.until_live()
        chart = Chart()
        async with trio.open_nursery() as looking:
            looking.start_soon(stays, world, chart)
            network.loud = True
            await trio.sleep(8 * 60)
            network.loud = False
            await trio.sleep(5 * 60)
            await world.until_live(seconds=3600)
            await trio.sleep(180)
            looking.cancel_scope.cancel()
        assert network.spoiled > 50
        assert world.service.supervisor.restarts == 0
        assert chart.compare(world.truth(chart)) == []
        assert world.exchange.now() // 1000 - chart.newest <= 60


def lie(text: str, random: Random) -> str:
    """A well-formed frame that is not true: of another time, or with other values."""
    frame = json.loads(text)
    event = frame.get("data", frame)
    if "k" not in event:
        return text
    bar = event["k"]
    shift = random.choice((1, -1, 7, -7, 1001, -1001, 10**6, -20_000_000, 40_000_000)) * 60_000
    if random.random() < 0.2:
        shift = random.choice((1, 10**13, 9 * 10**13 - bar["t"], -bar["t"], 59_999))
    bar["t"], bar["T"] = max(0, bar["t"] + shift), max(0, bar["T"] + shift)
    bar["x"] = random.random() < 0.5
    bar["n"] = random.choice((0, bar["n"], 2**62))
    bar["o"] = bar["h"] = bar["l"] = bar["c"] = random.choice(("0", "99999999999999999999.99999999999999999999", "1"))
    return json.dumps(frame)


@pytest.mark.parametrize("seed", range(2))
async def test_lies_from_binance_kill_nothing_and_heal(seed: int, autojump_clock: MockClock) -> None:
    """What it says of its candles is shown, be it as odd as it likes; but nothing ends by it, and nothing jumps."""
    async with noisy_world(seed, lie) as (world, network):
        await world.until_live()
        network.loud = True
        await trio.sleep(5 * 60)
        network.loud = False
        assert network.spoiled > 50
        await trio.sleep(10 * 60)
        assert world.service.supervisor.restarts == 0
        # A close that seems to come within the length of the history is waited for: until then REST is asked.
        chart = Chart()
        await world.load(chart)
        assert chart.wrong == [], "no jump, and nothing forming but the last"
        assert world.exchange.now() // 1000 - chart.newest <= 120
