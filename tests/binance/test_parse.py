"""What Binance documents is read digit for digit; what it does not is one error, whatever it is."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from candlesync.binance.listing import parse_exchange_info
from candlesync.binance.parse import (
    Acknowledgement,
    BinanceError,
    Ignored,
    Kline,
    ServerShutdown,
    _is_under,
    parse_error,
    parse_frame,
    parse_rows,
    parse_server_time,
)
from candlesync.core.candle import Candle, Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.errors import UnreadableAnswer, UnreadableFrame

BAR: dict[str, Any] = {
    "t": 1636768380000,
    "T": 1636768439999,
    "s": "BTCUSDT",
    "i": "1m",
    "f": 1143083231,
    "L": 1143083325,
    "o": "63906.66000000",
    "c": "63899.67000000",
    "h": "63913.01000000",
    "l": "63895.80000000",
    "v": "2.12684000",
    "n": 95,
    "x": False,
    "q": "135909.19299410",
    "V": "1.56664000",
    "Q": "100111.24304950",
    "B": "0",
}
EVENT: dict[str, Any] = {"e": "kline", "E": 1636768390931, "s": "BTCUSDT", "k": BAR}
ROW: list[Any] = [1, "2.5", "3", "1.5", "2", "10.00", 59_999, "25.0", 7, "4", "10", "0"]
BIG = "9" * 200_000


def shared(name: str) -> Path:
    """A recorded file; without the recordings the test is skipped, but not in CI."""
    folder = os.environ.get("CANDLESYNC_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data"
    path = Path(folder) / name
    if not path.exists():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{path} is not there")
    return path


def frame(event: object = EVENT, **changes: object) -> str:
    if changes:
        event = {**EVENT, "k": {**BAR, **changes}}
    return json.dumps(event)


def wrapped(stream: object, event: object = EVENT) -> str:
    return json.dumps({"stream": stream, "data": event})


def rows(*changes: dict[int, Any]) -> bytes:
    return json.dumps([[change.get(field, value) for field, value in enumerate(ROW)] for change in changes]).encode()


def as_row(candle: Candle) -> list[Any]:
    """The twelve fields, in Binance's order."""
    return [
        candle.open_time,
        candle.open,
        candle.high,
        candle.low,
        candle.close,
        candle.volume,
        candle.close_time,
        candle.quote_volume,
        candle.trades,
        candle.taker_base_volume,
        candle.taker_quote_volume,
        candle.unused,
    ]


def as_bar_row(bar: dict[str, Any]) -> list[Any]:
    return [bar[key] for key in ("t", "o", "h", "l", "c", "v", "T", "q", "n", "V", "Q", "B")]


# -- frames ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [frame(), frame().encode(), wrapped("btcusdt@kline_1m")])
def test_a_kline_frame_raw_or_wrapped(text: str | bytes) -> None:
    kline = parse_frame(text)
    assert isinstance(kline, Kline)
    assert kline.series == Series("BTCUSDT", Interval.M1)
    assert as_row(kline.candle) == as_bar_row(BAR)
    assert (kline.candle.closed, kline.candle.filled) == (False, False)


def test_the_closing_frame_closes() -> None:
    kline = parse_frame(frame(x=True))
    assert isinstance(kline, Kline)
    assert kline.candle.closed


@pytest.mark.parametrize("interval", INTERVALS)
def test_each_interval_in_wrapper_and_event(interval: Interval) -> None:
    text = wrapped(f"btcusdt@kline_{interval}", {**EVENT, "k": {**BAR, "i": str(interval)}})
    kline = parse_frame(text)
    assert isinstance(kline, Kline)
    assert kline.series.interval is interval


def test_symbols_beyond_ascii_are_read() -> None:
    event = {**EVENT, "s": "币安人生USDT", "k": {**BAR, "s": "币安人生USDT"}}
    kline = parse_frame(wrapped("币安人生usdt@kline_1m", event))
    assert isinstance(kline, Kline)
    assert kline.series.symbol == "币安人生USDT"


@pytest.mark.parametrize(
    "changes",
    [
        {"t": 0, "T": 0},
        {"t": 10**14 - 1, "T": 10**14 - 1},
        {"t": 1636768380001},  # off the grid: the sync decides
        {"n": 0, "f": -1, "L": -1, "v": "0.00000000"},  # a minute without trades
        {"h": "63895.80000000"},  # high = low
        {"h": "100000", "l": "9999.99999999"},  # more digits, not a later text
        {"o": "0", "l": "0.0"},
        {"new field of 2030": {"deep": [1, 2.5, None]}},
    ],
)
def test_unusual_and_right(changes: dict[str, Any]) -> None:
    kline = parse_frame(frame(**changes))
    assert isinstance(kline, Kline)
    assert as_row(kline.candle) == as_bar_row({**BAR, **changes})


BAD_DECIMALS = [
    "007",
    "00.5",
    "-1",
    "+1",
    "1e5",
    "1.",
    ".5",
    "",
    " 1",
    "1 ",
    "1 2",
    "1\n",
    "1,5",
    "NaN",
    "Infinity",
    "0x1",
    "1_0",
    "\u0663",
    "\uff11",
    "1.2.3",
    "9" * 21,
    "0." + "0" * 21,
    BIG,
    1.5,
    1,
    None,
    True,
    ["1"],
]


@pytest.mark.parametrize("value", BAD_DECIMALS, ids=lambda value: ascii(value)[:25])
@pytest.mark.parametrize("key", ["o", "Q"])
def test_a_price_is_a_plain_decimal_text(key: str, value: object) -> None:
    with pytest.raises(UnreadableFrame):
        parse_frame(frame(**{key: value}))


@pytest.mark.parametrize("key", "ohlcvqVQB")
def test_each_decimal_is_looked_at(key: str) -> None:
    with pytest.raises(UnreadableFrame, match="'1e5' where a decimal"):
        parse_frame(frame(**{key: "1e5"}))


@pytest.mark.parametrize("key", [key for key in BAR if key not in "fL"])
def test_no_documented_field_may_be_missing(key: str) -> None:
    event = {**EVENT, "k": {name: value for name, value in BAR.items() if name != key}}
    with pytest.raises(UnreadableFrame):
        parse_frame(json.dumps(event))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t": -1}, "int"),
        ({"t": 10**14, "T": 10**14}, "int"),
        ({"T": 10**14}, "int"),
        ({"t": 1636768380000.0}, "float"),
        ({"t": "1636768380000"}, "str"),
        ({"t": True}, "bool"),
        ({"T": 1636768379999}, "close time 1636768379999 before open time"),
        ({"n": -1}, "int"),
        ({"n": 2**70}, "int"),
        ({"x": 1}, "bool"),
        ({"i": "7m"}, "enum"),
        ({"i": "1MO"}, "enum"),
        ({"i": 1}, "str"),
        ({"h": "63895.79999999"}, "under low"),
        ({"h": "9999.9", "l": "10000"}, "under low"),  # as texts they would be in order
        ({"s": "ETHUSDT"}, "'BTCUSDT' outside and 'ETHUSDT' inside"),
    ],
)
def test_a_kline_that_is_not_as_documented(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnreadableFrame, match=message):
        parse_frame(frame(**changes))


@pytest.mark.parametrize("symbol", ["", "btcusdt", "BTC/USDT", "BTC USDT", "BTC\n", "A" * 51, "../..", "A@B"])
def test_a_symbol_that_cannot_be_one(symbol: str) -> None:
    with pytest.raises(UnreadableFrame):
        parse_frame(json.dumps({**EVENT, "s": symbol, "k": {**BAR, "s": symbol}}))


@pytest.mark.parametrize(
    "stream",
    [
        "ethusdt@kline_1m",
        "btcusdt@kline_5m",
        "BTCUSDT@kline_1m",
        "btcusdt@kline_1m@+08:00",
        "btcusdt@aggTrade",
        "",
        None,
        5,
        BIG,
    ],
)
def test_a_wrapper_that_disagrees_with_its_event(stream: object) -> None:
    with pytest.raises(UnreadableFrame):
        parse_frame(wrapped(stream))


def test_an_unwrapped_event_in_a_wrapper() -> None:
    with pytest.raises(UnreadableFrame):
        parse_frame(json.dumps({**EVENT, "stream": "btcusdt@kline_1m", "data": None}))


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('{"result":null,"id":1}', Acknowledgement(1, None)),
        ('{"result":null,"id":"a-1"}', Acknowledgement("a-1", None)),
        ('{"result":["btcusdt@kline_1m"],"id":3}', Acknowledgement(3, None)),
        ('{"error":{"code":2,"msg":"Invalid request"},"id":5}', Acknowledgement(5, "2: Invalid request")),
        ('{"code":0,"msg":"Unknown property","id":7}', Acknowledgement(7, "0: Unknown property")),
        ('{"code":3,"msg":"Invalid JSON"}', Acknowledgement(None, "3: Invalid JSON")),
        ('{"id":null,"error":{"code":3,"msg":"Invalid JSON"}}', Acknowledgement(None, "3: Invalid JSON")),
        ('{"e":"serverShutdown","E":1770123456789}', ServerShutdown()),
        ('{"stream":"btcusdt@kline_1m","data":{"e":"serverShutdown","E":1}}', ServerShutdown()),
        ('{"e":"trade","s":"BTCUSDT","p":"1","q":"2","k":"not a bar"}', Ignored("trade")),
        ('{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","s":"BTCUSDT"}}', Ignored("aggTrade")),
    ],
)
def test_what_is_not_a_kline(text: str, answer: object) -> None:
    assert parse_frame(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "5",
        '"kline"',
        "[]",
        "{}",
        "nonsense",
        frame()[:-1],
        frame() + "x",
        '{"e":"kline"}',
        '{"e":""}',
        '{"e":5}',
        '{"e":"' + BIG + '"}',
        json.dumps({**EVENT, "e": "notKline"})[:-1],
        '{"data":{"e":"trade"}}',
        '{"stream":"x","data":[]}',
        '{"stream":"x","data":{"e":null}}',
        '{"result":null}',
        '{"result":null,"id":true}',
        '{"result":null,"id":1.5}',
        '{"result":null,"id":"' + BIG + '"}',
        '{"error":"no","id":1}',
        '{"code":"2","msg":"x"}',
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"e":"kline","k":' + "[" * 100_000,
        '{"e":"\\ud800"}',
        '{"e":"\ud800"}',
        b'{"e":"\xff"}',
        b'{"x":"\xff","e":5}',
        b"\xef\xbb\xbf{}",
        '{"x":1e999}',
    ],
    ids=lambda text: ascii(text)[:30],
)
def test_anything_else_is_one_error_of_bounded_length(text: str | bytes) -> None:
    with pytest.raises(UnreadableFrame) as caught:
        parse_frame(text)
    message = str(caught.value)
    assert 10 < len(message) < 400
    assert message.isascii()
    assert message.isprintable()


def test_a_klines_fields_under_another_name_are_another_event() -> None:
    assert parse_frame(json.dumps({**EVENT, "e": "notKline"})) == Ignored("notKline")


def test_an_error_text_is_kept_short() -> None:
    answer = parse_frame('{"error":{"code":2,"msg":"' + BIG + '"},"id":5}')
    assert isinstance(answer, Acknowledgement)
    assert answer.error is not None
    assert len(answer.error) < 200


# -- rows --------------------------------------------------------------------------------------------------------------


def test_no_rows_are_an_answer() -> None:
    assert parse_rows(b"[]") == ()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_invariant_5_a_row_is_final_only_if_a_later_one_stands_in_the_same_answer(count: int) -> None:
    # Times of 1970: whatever a clock says, the newest row of the answer is forming.
    candles = parse_rows(rows(*({0: number, 6: number} for number in range(count))))
    assert [candle.closed for candle in candles] == [True] * (count - 1) + [False]
    assert not any(candle.filled for candle in candles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: -1}, "int"),
        ({0: 10**14}, "int"),
        ({0: 1.0}, "float"),
        ({0: "1"}, "str"),
        ({1: 2.5}, "float"),
        ({2: "1.4"}, "row 1 of 2: high 1.4 under low 1.5"),
        ({6: 1}, "close time 1 before open time 2"),
        ({8: -1}, "int"),
        ({11: None}, "null"),
        ({11: "x"}, "row 1 of 2: 'x' where a decimal"),
        ({0: 1}, "open time 1 after 1"),
        ({0: 0}, "open time 0 after 1"),
    ],
)
def test_one_bad_row_voids_the_answer(change: dict[int, Any], message: str) -> None:
    with pytest.raises(UnreadableAnswer, match=message):
        parse_rows(rows({}, {0: 2, **change}))


@pytest.mark.parametrize("value", BAD_DECIMALS, ids=lambda value: ascii(value)[:25])
def test_a_rows_price_is_a_plain_decimal_text(value: object) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        parse_rows(rows({}, {0: 2, 4: value}))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("row", [ROW[:-1], [*ROW, "0"], [], {}, None, "row"])
def test_a_row_has_exactly_twelve_fields(row: object) -> None:
    with pytest.raises(UnreadableAnswer):
        parse_rows(json.dumps([row]).encode())


decimals = st.builds(
    lambda whole, fraction: f"{whole}.{fraction}" if fraction else str(whole),
    st.integers(0, 10**20 - 1),
    st.text("0123456789", max_size=20),
)
times = st.integers(0, 10**14 - 1)


@st.composite
def answers(draw: st.DrawFn) -> list[list[Any]]:
    answer = []
    for open_time in sorted(draw(st.sets(times, max_size=4))):
        price = draw(decimals)
        close_time = draw(st.integers(open_time, 10**14 - 1))
        first = [open_time, draw(decimals), price, price, draw(decimals), draw(decimals), close_time, draw(decimals)]
        answer.append([*first, draw(st.integers(0, 2**40)), draw(decimals), draw(decimals), draw(decimals)])
    return answer


@settings(deadline=None)
@given(answers())
def test_valid_rows_come_back_digit_for_digit(answer: list[list[Any]]) -> None:
    assert [as_row(candle) for candle in parse_rows(json.dumps(answer).encode())] == answer


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    st.binary()
    | st.builds(lambda value: json.dumps(value).encode(), anything)
    | st.builds(lambda key, value: json.dumps({**EVENT, key: value}).encode(), st.sampled_from([*EVENT]), anything)
    | st.builds(lambda key, value: frame(**{key: value}).encode(), st.sampled_from([*BAR]), anything)
    | st.builds(lambda field, value: rows({field: value}), st.integers(0, 11), anything)
    | st.builds(lambda value: wrapped("btcusdt@kline_1m", value).encode(), anything)
)
def test_no_bytes_raise_anything_but_our_errors(body: bytes) -> None:
    messages = [
        refusal(parse_frame, body, UnreadableFrame),
        refusal(parse_rows, body, UnreadableAnswer),
        refusal(parse_exchange_info, body, UnreadableAnswer),
    ]
    assert max(map(len, messages)) < 400
    parse_error(body)


def refusal(parse: Callable[[bytes], object], body: bytes, expected: type[Exception]) -> str:
    try:
        parse(body)
    except expected as error:
        return str(error)
    return ""


@settings(deadline=None)
@given(st.text(alphabet=st.characters()))
def test_no_text_raises_anything_but_our_error(text: str) -> None:
    with pytest.raises(UnreadableFrame):
        parse_frame(text)


def test_futures_are_read_as_spot_is() -> None:
    """Contracts have other names, and fewer decimals."""
    bar = BAR | {"s": "BTCUSDT_260925", "o": "63906.6", "c": "63899.60", "v": "2", "q": "127799.2", "V": "0.126"}
    event = {"stream": "btcusdt_260925@kline_1m", "data": EVENT | {"s": "BTCUSDT_260925", "k": bar}}
    frame = parse_frame(json.dumps(event))
    assert isinstance(frame, Kline)
    assert frame.series == Series("BTCUSDT_260925", Interval.M1)
    assert (frame.candle.open, frame.candle.close, frame.candle.volume) == ("63906.6", "63899.60", "2")


# -- errors ------------------------------------------------------------------------------------------------------------


def test_binances_error_body() -> None:
    assert parse_error(b'{"code":-1121,"msg":"Invalid symbol."}') == BinanceError(-1121, "Invalid symbol.")
    huge = parse_error(json.dumps({"code": 1, "msg": BIG}).encode())
    assert huge is not None
    assert len(huge.msg) < 200


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"code":"1","msg":"x"}', b'{"code":1}', b"[" * 99_999])
def test_a_body_that_is_not_binances(body: bytes) -> None:
    assert parse_error(body) is None


# -- recorded ----------------------------------------------------------------------------------------------------------


def test_recorded_raw_frames() -> None:
    lines = shared("frames/btcusdt_kline_1m_20211113.jsonl").read_text().splitlines()
    assert len(lines) == 151
    closes = 0
    for line in lines:
        kline = parse_frame(line)
        assert isinstance(kline, Kline)
        bar = json.loads(line)["k"]
        assert as_row(kline.candle) == as_bar_row(bar)
        assert kline.candle.closed is bar["x"]
        assert kline.series == Series("BTCUSDT", Interval.M1)
        closes += kline.candle.closed
    assert closes == 5


def test_recorded_combined_frames() -> None:
    packed = shared("frames/BINANCE-ee25be.0__2021-04-04.kline-aggTrade.txt.gz").read_bytes()
    seen: dict[str, int] = {}
    for line in gzip.decompress(packed).decode().splitlines()[1:]:
        text = line.split(": ", 1)[1]
        outer = json.loads(text)
        answer = parse_frame(text)
        if isinstance(answer, Kline):
            bar = outer["data"]["k"]
            assert as_row(answer.candle) == as_bar_row(bar)
            assert f"{answer.series.symbol.lower()}@kline_{answer.series.interval}" == outer["stream"]
            seen["kline"] = seen.get("kline", 0) + 1
        else:
            assert isinstance(answer, Ignored)
            assert answer.event == outer["data"]["e"]
            seen[answer.event] = seen.get(answer.event, 0) + 1
    assert seen["kline"] >= 100
    assert seen["aggTrade"] > 1000


def test_recorded_klines_answers() -> None:
    answers = json.loads(gzip.decompress(shared("rest/klines_routes.json.gz").read_bytes()))
    answers["500"] = json.loads(shared("rest/klines_unknown-usdt-symbol_1m_500_2024-11-16.json").read_bytes())
    assert len(answers["500"]) == 500
    for answer in answers.values():
        candles = parse_rows(json.dumps(answer).encode())
        assert [as_row(candle) for candle in candles] == answer
        assert [candle.closed for candle in candles] == [True] * (len(answer) - 1) + [False]


def test_the_time() -> None:
    assert parse_server_time(b'{"serverTime":1700000000123}') == 1_700_000_000_123


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b'{"serverTime":"1700000000123"}', b'{"serverTime":1700000000123000}', b"\xff"]
)
def test_what_is_no_time(body: bytes) -> None:
    refusal(parse_server_time, body, UnreadableAnswer)


def test_recorded_errors() -> None:
    recorded = [
        case["body"] for case in json.loads(shared("rest/binance_error_bodies.json").read_bytes()) if "body" in case
    ]
    assert len(recorded) >= 14
    for body in recorded:
        error = parse_error(json.dumps(body).encode())
        assert error is not None
        assert error.code == body["code"]
        assert body["msg"].startswith(error.msg)


@pytest.mark.parametrize(
    ("one", "other", "is_under"),
    [
        ("9.50", "10.5", True),  # as long, and the greater text
        ("10.5", "9.50", False),
        ("1.5", "1.50", False),
        ("1.50", "1.5", False),
        ("1.45", "1.50", True),
        ("9", "10", True),
        ("1234", "12.5", False),
        ("12.5", "1234", True),
        ("0.00000001", "0.00000001", False),
    ],
)
def test_decimals_are_compared_as_numbers(one: str, other: str, is_under: bool) -> None:
    assert _is_under(one, other) is is_under
