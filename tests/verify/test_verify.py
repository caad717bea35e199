"""The whole check, against an honest server and against each kind of lie."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from candlesync.config import Settings
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.simulator.faults import Missing, RestDown
from candlesync.simulator.settings import SimulatorSettings
from candlesync.verify.check import Check
from candlesync.verify.findings import CannotCheck, Findings
from candlesync.verify.run import DIFFERENT, GOOD, UNCHECKED, Task, status_of, verify_over
from candlesync.web.access import AccessSettings, Token
from tests.verify.liar import Candles, Liar, doors
from tests.web.builders import Web
from tests.whole.world import World, open_world

BTC_1M = Series("BTCUSDT", Interval.M1)
MARKET = SimulatorSettings(minute_seconds=2.0)


async def checked(world: World, liar: Any, seconds: float) -> Findings:
    server, binance = doors(world, liar)
    return await Check(server, binance, BTC_1M).run(seconds)


def fields(findings: Findings) -> set[str]:
    return {difference.field for difference in findings.differences}


def digit(text: bytes, name: bytes) -> bytes:
    """With another last digit."""

    def other(found: re.Match[bytes]) -> bytes:
        return found[1] + (b"3" if found[2] == b"1" else b"1")

    return re.sub(rb'("%b":[0-9.]*)([0-9])' % name, other, text, count=1)


# --- lies over REST


def a_hole(candles: Candles) -> Candles:
    return candles[:500] + candles[501:]


def a_wrong_digit(candles: Candles) -> Candles:
    return [*candles[:300], digit(candles[300], b"close"), *candles[301:]]


def a_false_fill(candles: Candles) -> Candles:
    close = re.findall(rb'"close":([0-9.]+)', candles[399])[0]
    flat = re.sub(rb'("(?:open|high|low|close)":)[0-9.]+', rb"\g<1>" + close, candles[400])
    flat = re.sub(rb'"volume":[0-9.]+', b'"volume":0.00000000', flat)
    return [*candles[:400], flat.replace(b'"closed":true', b'"closed":true,"filled":true'), *candles[401:]]


def an_old_tail(candles: Candles) -> Candles:
    return candles[:-4]


def a_short_history(candles: Candles) -> Candles:
    return candles[-700:]


def an_open_candle(candles: Candles) -> Candles:
    return [*candles[:200], candles[200].replace(b'"closed":true', b'"closed":false'), *candles[201:]]


REST_LIES: dict[Callable[[Candles], Candles], str] = {
    a_hole: "missing",
    a_wrong_digit: "close",
    a_false_fill: "filled",
    an_old_tail: "late",
    a_short_history: "missing",
    an_open_candle: "closed",
}


async def test_each_lie_over_rest_is_found(autojump_clock: MockClock) -> None:
    async with open_world(MARKET, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        app = world.service.app
        honest = await checked(world, Liar(app), 0)
        assert (honest.differences, honest.unchecked, honest.candles) == ([], "", 1000)
        assert status_of([honest]) == GOOD
        for lie, field in REST_LIES.items():
            findings = await checked(world, Liar(app, history=lie), 0)
            assert field in fields(findings), lie.__name__
            assert fields(findings) <= {field, "missing"}, lie.__name__
            assert status_of([honest, findings]) == DIFFERENT
        for header in (b"candlesync-position", b"candlesync-state"):
            (difference,) = (await checked(world, Liar(app, without=header), 0)).differences
            assert difference.field.lower() == f"header {header.decode()}"


async def test_a_difference_is_one_clear_line(autojump_clock: MockClock) -> None:
    async with open_world(MARKET, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        (difference,) = (await checked(world, Liar(world.service.app, history=a_wrong_digit), 0)).differences
    shape = r"BTCUSDT 1m  \d{4}-\d\d-\d\d \d\d:\d\d:00  close  served (\S+)  Binance (\S+)"
    found = re.fullmatch(shape, difference.line("BTCUSDT 1m"))
    assert found is not None
    assert found[1][:-1] == found[2][:-1]
    assert found[1] != found[2]


# --- lies over the WebSocket


class Story:
    """Lies about one candle, the third that begins after the lie has begun; ``lie`` changes each of its messages."""

    def __init__(self, lie: Callable[[str], str | None]) -> None:
        self._lie = lie
        self._times: list[int] = []

    def __call__(self, text: str) -> str | None:
        time = int(re.findall(r'"time":(\d+)', text)[0])
        if time not in self._times:
            self._times.append(time)
        return self._lie(text) if len(self._times) == 3 and time == self._times[2] else text


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text)


class Reopens:
    """Shows the close once more as a forming candle's news: it is put in the next message's place."""

    def __init__(self) -> None:
        self._closed = ""

    def __call__(self, text: str) -> str | None:
        if '"closed":true' in text and not self._closed:
            self._closed = text
            return text
        if self._closed and self._closed != "told":
            told, self._closed = self._closed, "told"
            rev = int(re.findall(r'"rev":(\d+)', told)[0])
            return told.replace('"closed":true', '"closed":false').replace(f'"rev":{rev}', f'"rev":{rev + 1}')
        return text


LIVE_LIES: dict[str, tuple[Callable[[str], str | None], str]] = {
    "a wrong digit": (Story(lambda text: digit(text.encode(), b"volume").decode()), "volume"),
    "a missing minute": (Story(lambda _: None), "missing"),
    "a revision that goes back": (Story(replaced(r'"rev":\d', '"rev":')), "rev"),
    "no position": (Story(replaced(r',"position":"[^"]*"', "")), "position"),
    "open again": (Reopens(), "closed"),
    "no closes": (Story(replaced('"closed":true', '"closed":false')), "closed"),
    "silence": (lambda _: None, "late"),
}


async def test_each_lie_over_the_websocket_is_found(autojump_clock: MockClock) -> None:
    found: dict[str, Findings] = {}
    async with open_world(MARKET, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        app = world.service.app

        async def check(name: str, liar: Liar) -> None:
            found[name] = await checked(world, liar, 14)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(check, "", Liar(app))
            for name, (lie, _) in LIVE_LIES.items():
                nursery.start_soon(check, name, Liar(app, message=lie))
    honest = found[""]
    assert (honest.differences, honest.unchecked) == ([], "")
    assert honest.live > 50
    assert honest.closes >= 6
    assert len(honest.delays) >= 6
    assert max(honest.delays) < 1
    for name, (_, field) in LIVE_LIES.items():
        assert field in fields(found[name]), (name, found[name])
        assert not found[name].unchecked, name


# --- what is no lie


async def test_outages_that_are_filled_are_right_and_what_is_followed_is_asked_for(autojump_clock: MockClock) -> None:
    settings = Settings(symbols=("BTCUSDT",), intervals=(Interval.M1, Interval.M5))
    async with open_world(MARKET, settings) as world:
        await world.until_live()
        soon = Interval.M1.floor(world.exchange.now()) + 2 * 60_000
        gone = (soon, soon + 60_000)
        world.exchange.add_fault(Missing(open_times=gone, symbol="BTCUSDT", stream=True))
        await trio.sleep(25)
        server, binance = doors(world, Liar(world.service.app))
        said: list[str] = []
        findings = await verify_over(Task("", (), (), seconds=7), server, binance, said.append)
        assert [one.series for one in findings] == ["BTCUSDT 1m", "BTCUSDT 5m"]
        assert [one.differences for one in findings] == [[]] * 2
        assert status_of(findings) == GOOD
        assert findings[0].filled == 2
        minutes = await verify_over(Task("", (), (Interval.M5,), seconds=0), server, binance, said.append)
        assert [one.series for one in minutes] == ["BTCUSDT 5m"]


async def test_what_cannot_be_checked_is_said_and_the_others_are(autojump_clock: MockClock) -> None:
    async with open_world(MARKET, Settings(symbols=("BTCUSDT",))) as world:
        await world.until_live()
        server, binance = doors(world, Liar(world.service.app))
        task = Task("", ("BTCUSDT", "NOSUCH"), (), seconds=0)
        findings = await verify_over(task, server, binance, lambda _: None)
        assert [bool(one.unchecked) for one in findings] == [False, True]
        assert "NOSUCH" in findings[1].unchecked
        assert status_of(findings) == UNCHECKED
        other = Liar(Web(access=AccessSettings(tokens=(Token("sesame"),))).app)
        shut, _ = doors(world, other)
        with pytest.raises(CannotCheck, match="asks for a token"):
            await shut.followed()
        world.service.stop()
        gone = await checked(world, Liar(world.service.app), 3)
        assert gone.unchecked.startswith("its WebSocket is not open: ")
        world.exchange.add_fault(RestDown(seconds=1000))
        down = await checked(world, Liar(world.service.app), 0)
        assert down.unchecked.startswith("Binance cannot be asked: ")
