"""``GET /candles/{symbol}/{interval}``."""

from __future__ import annotations

import gzip

import pytest
import trio
from trio.testing import MockClock

from candlesync.core import wire
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.errors import CandlesyncError, LocationRefused, RateLimited, TooMany, UpstreamUnavailable
from tests.builders import BTC, candle, flat, forming, minute, minutes
from tests.web.builders import LIFE, Answer, Web, commit

PATH = "/candles/BTCUSDT/1m"


def numbers(answer: Answer) -> list[int]:
    """The minutes of the candles."""
    assert answer.status == 200
    return [(shown["time"] * 1000 - minute(0)) // 60_000 for shown in answer.json]


# --- the body


async def test_the_body_byte_for_byte() -> None:
    web = Web()
    topic = web.topic([candle(minute(0), "37000.10000000"), flat(minute(1), "37000.10000000")])
    commit(topic, forming(minute(2), "0.00000001", trades=1))
    answer = await web.get(PATH)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.body.decode() == (
        '[{"symbol":"BTCUSDT","interval":"1m","time":1700000040,"open":37000.00000000,"high":37100.00000000'
        ',"low":36900.00000000,"close":37000.10000000,"volume":10.50000000,"closed":true,"rev":1}'
        ',{"symbol":"BTCUSDT","interval":"1m","time":1700000100,"open":37000.10000000,"high":37000.10000000'
        ',"low":37000.10000000,"close":37000.10000000,"volume":0.00000000,"closed":true,"filled":true,"rev":1}'
        ',{"symbol":"BTCUSDT","interval":"1m","time":1700000160,"open":37000.00000000,"high":37100.00000000'
        ',"low":36900.00000000,"close":0.00000001,"volume":1.50000000,"closed":false,"rev":2}]'
    )


async def test_a_thousand_by_default_and_at_most() -> None:
    web = Web(history=1500)
    web.topic(minutes(0, 1499))
    assert numbers(await web.get(PATH)) == list(range(500, 1500))
    assert numbers(await web.get(f"{PATH}?limit=1000")) == list(range(500, 1500))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=1", [9]),
        ("limit=3", [7, 8, 9]),
        ("limit=1000", list(range(10))),
        (f"before={minute(9) // 1000}", list(range(9))),
        (f"before={minute(9) // 1000}&limit=2", [7, 8]),
        (f"before={minute(9) // 1000 + 1}&limit=2", [8, 9]),
        (f"before={minute(99) // 1000}&limit=1", [9]),
        (f"before={minute(0) // 1000}", []),
        ("before=0", []),
    ],
)
async def test_limit_and_before(query: str, expected: list[int]) -> None:
    web = Web()
    web.topic()
    assert numbers(await web.get(f"{PATH}?{query}")) == expected


async def test_a_young_listing_is_a_full_answer() -> None:
    web = Web()
    web.topic([candle(minute(0)), forming(minute(1))])
    answer = await web.get(PATH)
    assert numbers(answer) == [0, 1]
    assert answer.headers["Candlesync-State"] == "live"


async def test_the_symbol_in_any_case_and_the_interval_as_it_is() -> None:
    web = Web()
    web.topic()
    month = Series("BTCUSDT", Interval.MO1)
    web.topic([candle(month.interval.floor(minute(0)), interval=month.interval)], series=month)
    assert [shown["symbol"] for shown in (await web.get("/candles/btcUSDT/1m?limit=1")).json] == ["BTCUSDT"]
    assert [shown["interval"] for shown in (await web.get("/candles/btcusdt/1M")).json] == ["1M"]


# --- the headers


@pytest.mark.parametrize("state", State)
async def test_state_and_position(state: State) -> None:
    web = Web()
    topic = web.topic(state=state)
    commit(topic, forming(minute(10)))
    answer = await web.get(PATH)
    assert answer.headers["Candlesync-State"] == state.value
    assert answer.headers["Candlesync-Position"] == f"{LIFE}-2"
    assert answer.headers["Cache-Control"] == "no-cache"


async def test_no_position_with_before_which_is_not_all_there_is() -> None:
    web = Web()
    web.topic()
    answer = await web.get(f"{PATH}?before={minute(9) // 1000}")
    assert "Candlesync-Position" not in answer.headers
    assert answer.headers["Candlesync-State"] == "live"
    assert answer.headers["ETag"]


# --- conditional requests


async def test_an_unchanged_answer_is_304_without_a_body_and_with_its_headers() -> None:
    web = Web()
    topic = web.topic()
    first = await web.get(PATH)
    topic.set_state(State.STALE)
    again = await web.get(PATH, If_None_Match=first.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    for name in ("ETag", "Candlesync-Position", "Cache-Control", "Access-Control-Allow-Origin"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["Candlesync-State"] == "stale", "the state is of now, changed or not"
    assert not {"Content-Type", "Content-Length"} & set(again.headers), "those are the kept body's own"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', 'W/"a" , W/{} ,"b"', "*"])
async def test_every_form_of_if_none_match(form: str) -> None:
    web = Web()
    web.topic()
    tag = (await web.get(PATH)).headers["ETag"]
    assert (await web.get(PATH, If_None_Match=form.format(tag))).status == 304


@pytest.mark.parametrize("header", ['"other"', "", "life0-1-1000x", '"', 'W/"', ",,,", '"life0-1-5"', "é" * 50])
async def test_what_does_not_match(header: str) -> None:
    web = Web()
    web.topic()
    assert numbers(await web.get(PATH, If_None_Match=header)) == list(range(10))


async def test_a_tag_is_of_one_revision_of_one_life_and_of_one_question() -> None:
    web = Web()
    topic = web.topic()
    befores = [f"{PATH}?limit=5&before={before}" for before in (1700000580, 1700000640)]
    questions = [PATH, f"{PATH}?limit=10", f"{PATH}?limit=1", *befores]
    tags = [(await web.get(question)).headers["ETag"] for question in questions]
    commit(topic, forming(minute(10)))
    tags += [(await web.get(question)).headers["ETag"] for question in questions]
    commit(topic, *minutes(0, 9), life="life1")
    tags += [(await web.get(question)).headers["ETag"] for question in questions]
    assert len(set(tags)) == 15
    assert all(tag.startswith('"') for tag in tags), "strong: the bytes are the same"


async def test_the_same_question_has_the_same_tag_however_it_is_put() -> None:
    web = Web()
    web.topic()
    tag = (await web.get(PATH)).headers["ETag"]
    assert (await web.get("/candles/btcusdt/1m?limit=1000")).headers["ETag"] == tag


# --- gzip


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [
        ("gzip", True),
        ("gzip, deflate, br, zstd", True),
        ("GZIP;q=0.5", True),
        ("deflate, gzip;q=0.001", True),
        ("*", True),
        ("*;q=0.1", True),
        ("identity;q=0.5, gzip", True),
        ("gzip, identity", True),
        ("identity;q=0, gzip;q=0.1", True),
        ("identity;q=0, *", True),
        ("", False),
        ("identity", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=0.000, *;q=1", False),
        ("*;q=0", False),
        ("identity, gzip;q=0.5", False),
        ("gzip;q=0.5, *", False),
        ("gzip;q=2", False),
        ("gzipped", False),
        ("identity;q=0", False),
        ("identity;q=0, gzip;q=0", False),
        (";,;q=é,", False),
    ],
)
async def test_gzip_where_it_is_asked_for(accepted: str, is_gzip: bool) -> None:
    web = Web()
    topic = web.topic(minutes(0, 199))
    answer = await web.get(PATH, Accept_Encoding=accepted)
    assert answer.headers.get("Content-Encoding") == ("gzip" if is_gzip else None)
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    text = gzip.decompress(answer.body) if is_gzip else answer.body
    assert text == wire.history(BTC, topic.replica.newest(1000))
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert answer.headers["Content-Type"] == "application/json"


async def test_without_accept_encoding_an_answer_is_as_it_is() -> None:
    web = Web()
    web.topic(minutes(0, 199))
    answer = await web.get(PATH)
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Vary"] == "Accept-Encoding"


async def test_gzip_is_a_fraction_of_the_plain_answer() -> None:
    web = Web()
    web.topic(minutes(0, 999))
    plain, zipped = [await web.get(PATH, Accept_Encoding=accepted) for accepted in ("identity", "gzip")]
    assert len(zipped.body) < len(plain.body) / 10


async def test_a_few_candles_are_not_compressed() -> None:
    web = Web()
    web.topic(minutes(0, 199))
    few, more = [await web.get(f"{PATH}?limit={limit}", Accept_Encoding="gzip") for limit in (5, 20)]
    assert "Content-Encoding" not in few.headers
    assert few.headers["ETag"] == (await web.get(f"{PATH}?limit=5")).headers["ETag"]
    assert few.headers["Vary"] == more.headers["Vary"] == "Accept-Encoding"
    assert more.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in (await web.get(f"{PATH}?before=0", Accept_Encoding="gzip")).headers


async def test_gzip_of_each_revision() -> None:
    web = Web()
    topic = web.topic(minutes(0, 199))
    tags = set()
    for number in range(10):
        commit(topic, forming(minute(200), trades=number + 1))
        answer = await web.get(PATH, Accept_Encoding="gzip")
        assert gzip.decompress(answer.body) == wire.history(BTC, topic.replica.newest(1000))
        tags.add(answer.headers["ETag"])
    assert len(tags) == 10


async def test_each_form_has_its_own_tag_and_either_is_known_to_who_takes_it() -> None:
    web = Web()
    web.topic(minutes(0, 199))
    both = "gzip, deflate"
    plain, zipped = [(await web.get(PATH, Accept_Encoding=form)).headers["ETag"] for form in ("identity", "gzip")]
    assert plain != zipped
    for known, accepted, tag in [
        (zipped, both, zipped),
        (f"W/{zipped}", both, zipped),
        (plain, both, plain),
        (f"{plain}, {zipped}", both, zipped),
        (f"{zipped}, {plain}", "identity, gzip;q=0.5", plain),
        ("*", both, zipped),
        ("*", "identity", plain),
        (f"{zipped}, {plain}", "identity", plain),
    ]:
        answer = await web.get(PATH, If_None_Match=known, Accept_Encoding=accepted)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert "Content-Encoding" not in answer.headers


async def test_a_form_that_the_client_does_not_take_is_not_the_one_it_is_referred_to() -> None:
    """A shared cache that holds both tells both tags, and answers its client with the one that it is told."""
    web = Web()
    web.topic(minutes(0, 199))
    plain, zipped = [(await web.get(PATH, Accept_Encoding=form)).headers["ETag"] for form in ("identity", "gzip")]
    answer = await web.get(PATH, If_None_Match=zipped, Accept_Encoding="identity")
    assert (answer.status, answer.headers["ETag"]) == (200, plain)
    answer = await web.get(PATH, If_None_Match=plain, Accept_Encoding="gzip, identity;q=0")
    assert (answer.status, answer.headers["ETag"]) == (200, zipped)


# --- what cannot be had


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/candles/NOPE/1m", 404, "unknown_symbol"),
        ("/candles/b%C4%B1tcoin/1m", 404, "unknown_symbol"),
        ("/candles/%C5%BFOL/1m", 404, "unknown_symbol"),
        ("/candles/BTC%0D%0AX-Evil:%20y/1m", 404, "unknown_symbol"),
        ("/candles/%00/1m", 404, "unknown_symbol"),
        ("/candles/%FF%FE/1m", 404, "unknown_symbol"),
        ("/candles/%20/1m", 404, "unknown_symbol"),
        ("/candles/" + "A" * 10_000 + "/1m", 404, "unknown_symbol"),
        ("/candles/BTCUSDT/2m", 400, "bad_interval"),
        ("/candles/BTCUSDT/1H", 400, "bad_interval"),
        ("/candles/BTCUSDT/1m%0A", 400, "bad_interval"),
        (f"{PATH}?limit=0", 400, "bad_limit"),
        (f"{PATH}?limit=1001", 400, "bad_limit"),
        (f"{PATH}?limit=-1", 400, "bad_limit"),
        (f"{PATH}?limit=abc", 400, "bad_limit"),
        (f"{PATH}?limit=", 400, "bad_limit"),
        (f"{PATH}?limit=%00", 400, "bad_limit"),
        (f"{PATH}?limit=5&limit=5", 400, "bad_limit"),
        (f"{PATH}?before={minute(0)}", 400, "bad_parameter"),
        (f"{PATH}?before=-5", 400, "bad_parameter"),
        (f"{PATH}?before=1.5", 400, "bad_parameter"),
        (f"{PATH}?before=1&before=2", 400, "bad_parameter"),
        ("/candles/BTCUSDT", 404, "not_found"),
        ("/candles", 404, "not_found"),
        ("/candles/", 404, "not_found"),
        ("/candles//1m", 404, "not_found"),
        ("/candles/BTC%2FUSDT/1m", 404, "not_found"),
        ("/candles/BTCUSDT/1m/more", 404, "not_found"),
    ],
)
async def test_what_cannot_be_had(path: str, status: int, code: str) -> None:
    web = Web()
    web.topic()
    answer = await web.get(path)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert len(answer.body) < 500


async def test_a_bad_question_starts_no_series() -> None:
    web = Web()
    for path in ("/candles/BTCUSDT/2m", f"{PATH}?limit=0", f"{PATH}?before=x", "/candles/%20/1m"):
        assert (await web.get(path)).status in {400, 404}
    assert web.supervisor.asked == []


async def test_a_trailing_slash_is_no_redirect() -> None:
    web = Web()
    web.topic()
    assert numbers(await web.get(f"{PATH}/?limit=1")) == [9]


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (TooMany("200 symbols"), 429, "too_many", "60"),
        (UpstreamUnavailable("no candles yet", retry_after=5), 503, "upstream_unavailable", "5"),
        (RateLimited("banned", retry_after=30), 503, "upstream_unavailable", "30"),
        (LocationRefused("not from here"), 503, "upstream_unavailable", "5"),
    ],
)
async def test_limits_and_outages_say_when_to_come_back(
    error: CandlesyncError, status: int, code: str, retry_after: str
) -> None:
    web = Web()
    web.supervisor.refusals["BTCUSDT"] = error
    answer = await web.get(PATH)
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (status, code, retry_after)
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


async def test_an_answer_waits_for_the_series_to_start_and_is_of_one_revision(autojump_clock: MockClock) -> None:
    web = Web()
    topic = web.topic()
    web.supervisor.delay = 3
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await web.get(PATH))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.sleep(1)
        commit(topic, candle(minute(10)))
    assert trio.current_time() == 3
    assert numbers(answers[0])[-1] == 10
    assert answers[0].headers["Candlesync-Position"] == f"{LIFE}-2"
    assert web.supervisor.asked == [Series("BTCUSDT", Interval.M1)]
