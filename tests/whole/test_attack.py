"""A few seconds of every kind of attack on a real server; ``scripts/attack`` goes on for as long as one likes."""

from __future__ import annotations

from tests.stalls import again_if_disturbed
from tests.whole.attacking.__main__ import attack
from tests.whole.attacking.clients import KINDS
from tests.whole.attacking.upstream import fault_of


@again_if_disturbed
async def test_a_server_that_is_attacked_goes_on_as_if_nothing_were() -> None:
    result = await attack(1.0, seed=7, idle=0.5)
    assert result.wrong == [], "\n".join(result.lines())
    assert result.inputs.keys() == KINDS.keys()
    assert result.asked > 3


def test_what_should_not_be_asked_of_binance_is_noticed() -> None:
    host = b"Host: x"
    for good in (
        b"/api/v3/klines?symbol=BTCUSDT&interval=1m&limit=1000",
        b"/api/v3/exchangeInfo",
        b"/stream?streams=btcusdt@kline_1m/btcusdt@kline_5m",
        b"/ws/btcusdt@kline_1M",
    ):
        assert fault_of(b"GET " + good + b" HTTP/1.1\r\n" + host) == ""
    for bad in (
        b"/api/v3/klines?symbol=BTC%2FUSDT",
        b"/api/v3/klines?symbol=BTCUSDT&signature=1",
        b"/api/v3/account",
        b"/ws/btcusdt@trade",
        b"/stream?streams=../x",
        b"/",
    ):
        assert fault_of(b"GET " + bad + b" HTTP/1.1\r\n" + host) != ""
    assert fault_of(b"POST /api/v3/klines HTTP/1.1\r\n" + host) != ""
