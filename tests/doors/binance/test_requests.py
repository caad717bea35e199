"""What is asked of Binance's streams, and what Binance answers: the documented cases, and the recorded ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.doors.binance.errors import BinanceRefusal, bad_request
from candlesync.doors.binance.requests import (
    MOST_STREAMS,
    GetCombined,
    ListSubscriptions,
    MessageRefusal,
    Request,
    SetCombined,
    Subscribe,
    Unsubscribe,
    error,
    read_request,
    read_stream,
    read_target,
    result,
    stream_of,
)

BTC = Series("BTCUSDT", Interval.M1)
ETH = Series("ETHBTC", Interval.MO1)
METHODS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"

GRANTED: list[tuple[str, Request]] = [
    # "Subscribe to a stream", with a stream that is served here, and each form of an id
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":1}', Subscribe(1, (BTC,))),
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m","ethbtc@kline_1M"],"id":1}', Subscribe(1, (BTC, ETH))),
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m","btcusdt@kline_1m"],"id":1}', Subscribe(1, (BTC,))),
    ('{"method":"SUBSCRIBE","params":[],"id":1}', Subscribe(1, ())),
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":-9223372036854775808}', Subscribe(-(2**63), (BTC,))),
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":"aB3"}', Subscribe("aB3", (BTC,))),
    (
        '{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":"9d32157c-a556-4d27-9866-66760a174b57"}',
        Subscribe("9d32157c-a556-4d27-9866-66760a174b57", (BTC,)),
    ),
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_1m"],"id":null}', Subscribe(None, (BTC,))),
    (
        '{\n  "method": "SUBSCRIBE",\n  "params": [\n    "btcusdt@kline_1m"\n  ],\n  "id": 1,\n  "other": {}\n}',
        Subscribe(1, (BTC,)),
    ),
    # "Unsubscribe to a stream"; what is not served cannot have been subscribed to
    ('{"method":"UNSUBSCRIBE","params":["btcusdt@kline_1m"],"id":312}', Unsubscribe(312, (BTC,))),
    ('{"method":"UNSUBSCRIBE","params":["btcusdt@depth"],"id":312}', Unsubscribe(312, ())),
    # "Listing Subscriptions"
    ('{"method":"LIST_SUBSCRIPTIONS","id":3}', ListSubscriptions(3)),
    ('{"method":"LIST_SUBSCRIPTIONS","params":[],"id":3}', ListSubscriptions(3)),
    # "Setting Properties", "Retrieving Properties"
    ('{"method":"SET_PROPERTY","params":["combined",true],"id":5}', SetCombined(5, combined=True)),
    ('{"method":"SET_PROPERTY","params":["combined",false],"id":5}', SetCombined(5, combined=False)),
    ('{"method":"GET_PROPERTY","params":["combined"],"id":2}', GetCombined(2)),
]

REFUSED: list[tuple[str, int, str, int | str | None]] = [
    # web-socket-streams.md, "Error Messages"
    ('{"method":"SET_PROPERTY","params":["colour",true],"id":5}', 0, "Unknown property", 5),
    ('{"method":"GET_PROPERTY","params":["colour"],"id":"x"}', 0, "Unknown property", "x"),
    ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":5}', 1, "Invalid value type: expected Boolean", 5),
    ('{"method":"SET_PROPERTY","params":["combined",1],"id":5}', 1, "Invalid value type: expected Boolean", 5),
    ('{"method":"SET_PROPERTY","params":["combined"],"id":5}', 1, "Invalid value type: expected Boolean", 5),
    ('{"method":"SET_PROPERTY","params":[true],"id":5}', 2, "Invalid request: property name must be a string", 5),
    ('{"method":"SET_PROPERTY","params":[],"id":5}', 2, "Invalid request: property name must be a string", 5),
    ('{"method":"GET_PROPERTY","id":5}', 2, "Invalid request: property name must be a string", 5),
    ('{"method":"GET_PROPERTY","params":[null],"id":5}', 2, "Invalid request: property name must be a string", 5),
    *(
        (
            f'{{"method":"LIST_SUBSCRIPTIONS"{an_id}}}',
            2,
            "Invalid request: request ID must be an unsigned integer",
            None,
        )
        for an_id in (
            *("", ',"id":true', ',"id":1.5', ',"id":[]', ',"id":{}', ',"id":9223372036854775808', ',"id":"a b"'),
            f',"id":"{"a" * 37}"',
        )
    ),
    (
        '{"method":"SUBSCRIB","params":["btcusdt@kline_1m"],"id":1}',
        2,
        f"Invalid request: unknown variant `SUBSCRIB`, expected one of {METHODS} at line 1 column 20",
        1,
    ),
    (
        '{"params":["btcusdt@kline_1m"],"id":1,\n "method":"subscribe"}',
        2,
        f"Invalid request: unknown variant `subscribe`, expected one of {METHODS} at line 2 column 21",
        1,
    ),
    ('{"method":"LIST_SUBSCRIPTIONS","params":["x"],"id":1}', 2, "Invalid request: too many parameters", 1),
    ('{"method":"GET_PROPERTY","params":["combined",true],"id":1}', 2, "Invalid request: too many parameters", 1),
    ('{"method":"SET_PROPERTY","params":["combined",true,1],"id":1}', 2, "Invalid request: too many parameters", 1),
    ('{"params":["btcusdt@kline_1m"],"id":7}', 2, "Invalid request: missing field `method` at line 1 column 38", 7),
    ("[]", 2, "Invalid request: missing field `method` at line 1 column 2", None),
    ("12", 2, "Invalid request: missing field `method` at line 1 column 2", None),
    ("what", 3, "Invalid JSON: expected value at line 1 column 1", None),
    ('{\n "method": what}', 3, "Invalid JSON: expected value at line 2 column 12", None),
    ('{"method":"SUBSCRIBE",', 3, "Invalid JSON: expected value at line 1 column 22", None),
    ("", 3, "Invalid JSON: expected value at line 1 column 0", None),
    ("[" * 5000, 3, "Invalid JSON: expected value at line 1 column 5000", None),
    # seen, not documented (see the docstring of what is tested)
    ('{"method":"SUBSCRIBE","params":["not a name"],"id":1}', 2, "Invalid request: invalid stream", 1),
    ('{"method":"SUBSCRIBE","params":[5],"id":1}', 2, "Invalid request: invalid stream", 1),
    ('{"method":"UNSUBSCRIBE","params":[""],"id":1}', 2, "Invalid request: invalid stream", 1),
    # what the documentation leaves open: in its words
    ('{"method":"SUBSCRIBE","id":1}', 2, "Invalid request: missing field `params` at line 1 column 29", 1),
    (
        '{"method":"SUBSCRIBE","params":"btcusdt@kline_1m","id":1}',
        2,
        "Invalid request: params must be an array of stream names at line 1 column 57",
        1,
    ),
    # what is not served here: Binance's codes for the like
    ('{"method":"SUBSCRIBE","params":["btcusdt@kline_7m"],"id":1}', -1120, "Invalid interval.", 1),
    ('{"method":"SUBSCRIBE","params":["b~c@kline_1m"],"id":1}', -1121, "Invalid symbol.", 1),
    (
        '{"method":"SUBSCRIBE","params":["btcusdt@kline_1m","btcusdt@trade"],"id":1}',
        2,
        "Invalid request: invalid stream btcusdt@trade: served are <symbol>@kline_<interval>",
        1,
    ),
    (
        '{"method":"SUBSCRIBE","params":["btcusdt@kline_1m,ethbtc@kline_1M"],"id":1}',
        2,
        "Invalid request: invalid stream btcusdt@kline_1m,ethbtc@kline_1M: served are <symbol>@kline_<interval>",
        1,
    ),
    (
        '{"method":"SUBSCRIBE","params":["BTCUSDT@kline_1m"],"id":1}',
        2,
        "Invalid request: invalid stream BTCUSDT@kline_1m: symbols of streams are in lower case",
        1,
    ),
    (
        '{"method":"SUBSCRIBE","params":["btcusdt@kline_1d@+08:00"],"id":1}',
        2,
        "Invalid request: invalid stream btcusdt@kline_1d@+08:00: candles of other time zones than UTC are not served",
        1,
    ),
]


@pytest.mark.parametrize(("message", "request_"), GRANTED)
def test_what_is_granted(message: str, request_: Request) -> None:
    assert read_request(message) == request_


@pytest.mark.parametrize(("message", "code", "words", "request_id"), REFUSED)
def test_what_is_refused(message: str, code: int, words: str, request_id: int | str | None) -> None:
    with pytest.raises(MessageRefusal) as caught:
        read_request(message)
    answer = json.loads(error(caught.value.refusal, caught.value.id))
    assert answer == {"error": {"code": code, "msg": words}, "id": request_id}


def test_the_bytes_of_the_answers() -> None:
    assert result(1) == b'{"result":null,"id":1}'
    assert result("a", [stream_of(BTC)]) == b'{"result":["btcusdt@kline_1m"],"id":"a"}'
    assert result(None, value=True) == b'{"result":true,"id":null}'
    assert error(bad_request(0, "Unknown property"), 2) == b'{"error":{"code":0,"msg":"Unknown property"},"id":2}'
    assert bad_request(-1121, "Invalid symbol.").body == b'{"code":-1121,"msg":"Invalid symbol."}'


@pytest.mark.parametrize("interval", INTERVALS, ids=str)
def test_each_interval_has_its_stream(interval: Interval) -> None:
    series = Series("1000SATSFDUSD", interval)
    assert stream_of(series) == f"1000satsfdusd@kline_{interval}"
    assert read_stream(stream_of(series)) == series


@pytest.mark.parametrize(
    ("path", "series"),
    [
        ("", ()),
        ("0", ()),  # what ccxt connects to, and then subscribes
        ("17", ()),
        ("btcusdt@kline_1m", (BTC,)),
        ("btcusdt@kline_1m/", (BTC,)),
        ("btcusdt@kline_1m/ethbtc@kline_1M", (BTC, ETH)),
        ("ethbtc@kline_1M/btcusdt@kline_1m/ethbtc@kline_1M", (ETH, BTC)),
    ],
)
def test_a_url(path: str, series: tuple[Series, ...]) -> None:
    assert read_target(path.split("/")) == series


@pytest.mark.parametrize(
    "path", ["btcusdt", "btcusdt@trade", "0/!ticker@arr", "pqia91ma19a5s61cv6a81va65sdf19v8a65a1a5s61"]
)
def test_a_url_that_asks_for_what_is_not_served(path: str) -> None:
    with pytest.raises(BinanceRefusal, match="invalid stream"):
        read_target(path.split("/"))


def test_a_url_with_too_many_streams() -> None:
    names = [f"a{number}@kline_1m" for number in range(MOST_STREAMS + 1)]
    assert len(read_target(names[1:])) == MOST_STREAMS
    with pytest.raises(BinanceRefusal, match="Too many subscriptions"):
        read_target(names)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from(["SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY"])
        | JSON,
        "params": st.lists(st.sampled_from(["btcusdt@kline_1m", "combined", "x@y", True]), max_size=4) | JSON,
        "id": JSON,
    },
)


@given(message=st.one_of(st.text(), JSON.map(json.dumps), REQUESTS.map(json.dumps)))
def test_whatever_is_sent_is_understood_or_answered_in_a_few_words(message: str) -> None:
    answer: Any
    try:
        request = read_request(message)
    except MessageRefusal as refused:
        answer = error(refused.refusal, refused.id)
        assert set(json.loads(answer)) == {"error", "id"}
        assert len(answer) < 500
    else:
        assert json.loads(result(request.id)) == {"result": None, "id": request.id}
