# ruff: noqa: RUF001 - letters and digits that only look like ASCII are the point
"""What clients may ask for, value by value."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.position import Position
from candlesync.web.parameters import (
    Replay,
    Resume,
    Since,
    Start,
    read_before,
    read_limit,
    read_series,
    read_start,
)
from candlesync.web.refusal import Refusal


def refused(read: Callable[[], object], code: str, says: str = "") -> None:
    with pytest.raises(Refusal) as caught:
        read()
    assert caught.value.code == code
    assert says in caught.value.message


@pytest.mark.parametrize("text", ["BTCUSDT", "btcusdt", "BtcUsdt"])
def test_a_symbol_is_taken_in_any_case(text: str) -> None:
    assert read_series(text, "1m") == Series("BTCUSDT", Interval.M1)


@pytest.mark.parametrize("text", ["1000SATSUSDT", "BTCUSDT_240628", "A-B.C", "A" * 50])
def test_what_binance_may_call_a_symbol(text: str) -> None:
    assert read_series(text, "1m").symbol == text


@pytest.mark.parametrize(
    "text",
    [
        "", " BTCUSDT", "BTC USDT", "BTC/USDT", "BTC%2FUSDT", "BTCUSDT\n", "BTC\r\nX: y", "A" * 51, "a" * 100_000,
        "bıtcoin", "ſol", "ＢＴＣＵＳＤＴ", "btc\u0000", "{}", "'", '"', "BTCUSDT@kline_1m",
    ],
)  # fmt: skip
def test_what_no_symbol_is_called(text: str) -> None:
    refused(lambda: read_series(text, "1m"), "unknown_symbol", "/symbols")


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_every_interval_is_taken(interval: Interval) -> None:
    assert read_series("BTCUSDT", str(interval)).interval is interval


def test_intervals_are_case_sensitive() -> None:
    assert read_series("BTCUSDT", "1m").interval is Interval.M1
    assert read_series("BTCUSDT", "1M").interval is Interval.MO1


@pytest.mark.parametrize("text", ["", "1H", "2m", "60", "1m ", "１m", "1m\n", "M1", "1" * 100_000])
def test_what_is_no_interval(text: str) -> None:
    refused(lambda: read_series("BTCUSDT", text), "bad_interval", "1m, 3m, 5m")


def test_the_symbol_is_looked_at_first() -> None:
    refused(lambda: read_series("ı", "2m"), "unknown_symbol")


@pytest.mark.parametrize(("texts", "limit"), [([], 1000), (["1"], 1), (["1000"], 1000), (["007"], 7)])
def test_limits(texts: list[str], limit: int) -> None:
    assert read_limit(texts) == limit


BAD_COUNTS = [
    "",
    "abc",
    "-1",
    "+5",
    " 5",
    "5 ",
    "5\n",
    "1e2",
    "5.0",
    "0x10",
    "1_000",
    "１０",
    "٣",
    "²",
    "1001",
    "9" * 5000,
]


@pytest.mark.parametrize("text", ["0", *BAD_COUNTS])
def test_bad_limits(text: str) -> None:
    refused(lambda: read_limit([text]), "bad_limit", "from 1 to 1000")


def test_a_limit_is_given_once() -> None:
    refused(lambda: read_limit(["5", "5"]), "bad_limit", "2 times")


def test_before_is_a_time_in_seconds() -> None:
    assert read_before([]) is None
    assert read_before(["1700000040"]) == 1_700_000_040_000
    assert read_before(["0"]) == 0


BAD_TIMES = ["", "-1", "1.5", "1e9", "now", "2023-11-14", "１７０００００００４０", "1700000040 ", "9" * 5000]


@pytest.mark.parametrize("text", BAD_TIMES)
def test_bad_times(text: str) -> None:
    refused(lambda: read_before([text]), "bad_parameter", "before must be a time in whole UNIX seconds")
    refused(lambda: read_start({"since": [text]}), "bad_parameter", "since must be a time in whole UNIX seconds")


def test_a_time_in_milliseconds_is_named_as_such() -> None:
    refused(lambda: read_before(["1700000040000"]), "bad_parameter", "looks like milliseconds")
    refused(lambda: read_start({"since": ["1700000040000"]}), "bad_parameter", "looks like milliseconds")


def test_before_is_given_once() -> None:
    refused(lambda: read_before(["1", "2"]), "bad_parameter", "before is given 2 times")


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ({}, Replay(5)),
        ({"other": ["1"]}, Replay(5)),
        ({"replay": ["0"]}, Replay(0)),
        ({"replay": ["1000"]}, Replay(1000)),
        ({"since": ["1700000040"]}, Since(1_700_000_040_000)),
        ({"position": ["life0-12"]}, Resume(Position("life0", 12))),
    ],
)
def test_where_a_subscription_starts(given: dict[str, list[str]], start: Start) -> None:
    assert read_start(given) == start


@pytest.mark.parametrize("text", BAD_COUNTS)
def test_bad_replays(text: str) -> None:
    refused(lambda: read_start({"replay": [text]}), "bad_parameter", "replay must be a whole number from 0 to 1000")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "life0",
        "life0-",
        "-5",
        "life0--5",
        "life0-5 ",
        "LIFE0-5",
        "life0-５",
        "life0-" + "9" * 19,
        "a" * 9000,
    ],
)
def test_positions_that_no_server_gave(text: str) -> None:
    refused(
        lambda: read_start({"position": [text]}), "bad_parameter", "position is not a position that this server gave"
    )


@pytest.mark.parametrize(
    "names", [("replay", "since"), ("replay", "position"), ("since", "position"), ("replay", "since", "position")]
)
def test_starts_exclude_each_other(names: tuple[str, ...]) -> None:
    refused(lambda: read_start({name: ["1"] for name in names}), "bad_parameter", "exclude each other")


@pytest.mark.parametrize("name", ["replay", "since", "position"])
def test_a_start_is_given_once(name: str) -> None:
    refused(lambda: read_start({name: ["5", "5"]}), "bad_parameter", f"{name} is given 2 times")


def test_what_a_client_sent_comes_back_short_and_printable() -> None:
    with pytest.raises(Refusal) as caught:
        read_series("\r\n\u202e" + "é" * 100_000, "1m")
    assert len(caught.value.message) < 400
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
