"""Whatever a client sends as a query is understood, or refused in Binance's words; nothing odd is let through."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from candlesync.binance.public import PublicApi, PublicPath
from candlesync.binance.public_paths import SPOT_API, SPOT_US_API, USDM_API
from candlesync.core.interval import INTERVALS
from candlesync.doors.binance.errors import BinanceRefusal
from candlesync.doors.binance.parameters import (
    KlineQuestion,
    read_kline_question,
    read_parameters,
    wants_microseconds,
)

KLINES = SPOT_API.at("klines")
PUBLIC_PATHS = [(api, path) for api in (SPOT_API, SPOT_US_API, USDM_API) for path in api.paths]
NAMES = sorted({name for _, path in PUBLIC_PATHS for name in path.parameters} | {"signature", "Symbol", ""})
VALUES = st.one_of(
    st.sampled_from(["BTCUSDT", "1m", "0", "1", "1000", "-1", "8", "+08:00", "1717372800000", "1717372800000000", ""]),
    st.from_regex(r"[0-9]{1,22}", fullmatch=True),
    st.text(max_size=8),
)
QUERIES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=5).map(urlencode).map(str.encode)


def question(api: PublicApi = SPOT_API, **values: str) -> KlineQuestion:
    query = urlencode({"symbol": "BTCUSDT", "interval": "1m", **values}).encode()
    return read_kline_question(read_parameters(query, api.at("klines")), api)


def read(query: bytes, path: PublicPath) -> tuple[dict[str, str] | None, int]:
    """The parameters, or the code of the refusal."""
    try:
        return read_parameters(query, path), 0
    except BinanceRefusal as refusal:
        return None, refusal.code if refusal.status == 400 else 0


@given(st.sampled_from(PUBLIC_PATHS), QUERIES | st.binary(max_size=40))
def test_any_query_is_understood_or_refused(of: tuple[PublicApi, PublicPath], query: bytes) -> None:
    api, path = of
    values, code = read(query, path)
    if values is None:
        assert -1200 < code <= -1100
        return
    assert set(path.mandatory) <= set(values) <= set(path.parameters)
    assert 0 < path.weigh(values) <= 250
    for name, value in values.items():
        assert value
        assert value.isprintable()
        assert not set(value) & set("/\\;<>()*%&#?'"), (name, value)
    if path is api.at("klines") and 1 <= int(values.get("limit", "1")) <= 1000:
        asked = read_kline_question(values, api)
        assert 1 <= asked.limit <= 1000
        assert asked.interval in {None, *INTERVALS}


def test_limits() -> None:
    assert [question().limit, question(limit="1").limit, question(limit="1001").limit] == [500, 1, 1000]
    with pytest.raises(BinanceRefusal, match="'limit'"):
        question(limit="000")
    assert question(USDM_API, limit="1500").limit == 1500
    for limit in ("0", "1501"):  # recorded of 1501
        with pytest.raises(BinanceRefusal, match="'limit' is not valid") as refused:
            question(USDM_API, limit=limit)
        assert refused.value.code == -1130


@pytest.mark.parametrize(
    ("sent", "start", "end"),
    [
        ("0", 0, 0),
        ("1717372800000", 1_717_372_800_000, 1_717_372_800_000),
        ("99999999999999", 99_999_999_999_999, 99_999_999_999_999),
        ("1717372800000000", 1_717_372_800_000, 1_717_372_800_000),
        ("1717372800000001", 1_717_372_800_001, 1_717_372_800_000),
        ("1717372800000999", 1_717_372_800_001, 1_717_372_800_000),
    ],
)
def test_times_are_milliseconds_or_microseconds(sent: str, start: int, end: int) -> None:
    asked = question(startTime=sent, endTime=sent)
    assert (asked.start, asked.end) == (start, end)
    other = question(USDM_API, startTime=sent, endTime=sent)
    assert (other.start, other.end) == (int(sent), int(sent)), "microseconds are the spot API's"


@pytest.mark.parametrize("zone", ["0", "00:00", "+0", "-0:00", "+00:00", "00"])
def test_utc_has_many_names(zone: str) -> None:
    assert question(timeZone=zone).is_utc


@pytest.mark.parametrize("zone", ["8", "-1:00", "05:45", "14", "+14:00", "-12", "0:15"])
def test_other_zones_are_not_utc(zone: str) -> None:
    assert not question(timeZone=zone, interval="1d").is_utc
    plain = f"symbol=BTCUSDT&interval=1d&timeZone={zone}".encode()
    assert not read_kline_question(read_parameters(plain, KLINES), SPOT_API).is_utc, "a plus sign that is not escaped"


@pytest.mark.parametrize(
    ("zone", "same"),
    [
        ("8", "1s 1m 3m 5m 15m 30m 1h 2h 4h 8h"),
        ("-1:00", "1s 1m 3m 5m 15m 30m 1h"),
        ("-12", "1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 12h"),
        ("05:45", "1s 1m 3m 5m 15m"),
        ("5:30", "1s 1m 3m 5m 15m 30m"),
        ("0:07", "1s 1m"),
    ],
)
def test_the_shorter_bars_of_another_zone_are_those_of_utc(zone: str, same: str) -> None:
    """rest-api.md: "kline intervals are interpreted in that timezone", which moves where they begin."""
    found = [str(interval) for interval in INTERVALS if question(timeZone=zone, interval=str(interval)).is_utc]
    assert found == same.split()


@pytest.mark.parametrize("zone", ["15", "14:01", "-12:15", "1:60", "UTC", "Z", "8:0", "1:000", "--1", "\u0668", "1 "])
def test_what_is_no_zone(zone: str) -> None:
    with pytest.raises(BinanceRefusal, match="'timeZone' is not valid"):
        question(timeZone=zone)


def test_units_of_time() -> None:
    assert not wants_microseconds([])
    assert not wants_microseconds(["MILLISECOND"])
    assert wants_microseconds(["microsecond"])
    for units in (["Microsecond"], [""], ["microsecond", "millisecond"]):
        with pytest.raises(BinanceRefusal, match="time unit"):
            wants_microseconds(units)
