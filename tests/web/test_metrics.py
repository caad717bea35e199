"""``/metrics``, as Prometheus reads it."""

from __future__ import annotations

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from trio.testing import MockClock

from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.sync import State
from candlesync.web.access import AccessSettings, Token
from tests.builders import BTC, candle, minute
from tests.metrics import Samples, read_samples
from tests.web.builders import Web, commit

ETH = Series("ETHUSDT", Interval.M1)


async def samples(web: Web) -> Samples:
    answer = await web.get("/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return read_samples(answer.body.decode())


async def test_a_server_that_follows_nothing() -> None:
    found = await samples(Web())
    assert found["candlesync_symbols", ()] == 0
    assert found["candlesync_sockets", ()] == 0
    assert {key: value for key, value in found.items() if key[0] == "candlesync_series"} == {
        ("candlesync_series", ("live",)): 0,
        ("candlesync_series", ("syncing",)): 0,
        ("candlesync_series", ("stale",)): 0,
    }


async def test_series_commits_and_states() -> None:
    web = Web(pinned=[BTC, ETH])
    topic = web.topic()
    web.topic(series=ETH, state=State.STALE)
    commit(topic, candle(minute(10)))
    found = await samples(web)
    assert found["candlesync_series", ("live",)] == 1
    assert found["candlesync_series", ("stale",)] == 1
    assert found["candlesync_series_live", ("1m", "BTCUSDT")] == 1
    assert found["candlesync_series_live", ("1m", "ETHUSDT")] == 0
    assert found["candlesync_commits_total", ("1m", "BTCUSDT")] == 2
    assert found["candlesync_commits_total", ("1m", "ETHUSDT")] == 1
    assert found["candlesync_newest_open_time_seconds", ("1m", "BTCUSDT")] == minute(10) / 1000


async def test_what_clients_choose_to_follow_is_one_label_and_only_grows() -> None:
    web = Web(pinned=[BTC])
    web.topic()
    for number in range(50):
        web.topic(series=Series(f"X{number}USDT", Interval.M1))
    for _ in range(2):
        found = await samples(web)
        assert {key for key in found if key[0] == "candlesync_commits_total"} == {
            ("candlesync_commits_total", ("1m", "BTCUSDT")),
            ("candlesync_commits_total", ("other", "other")),
        }
        assert found["candlesync_commits_total", ("other", "other")] == 50
        for number in range(50):
            web.hub.close(Series(f"X{number}USDT", Interval.M1))


async def test_for_how_long_a_pinned_series_is_not_live(autojump_clock: MockClock) -> None:
    web = Web(pinned=[BTC])
    topic = web.topic(state=State.SYNCING)
    await trio.sleep(7)
    assert (await samples(web))["candlesync_series_not_live_seconds", ("1m", "BTCUSDT")] == pytest.approx(7)
    topic.set_state(State.LIVE)
    assert (await samples(web))["candlesync_series_not_live_seconds", ("1m", "BTCUSDT")] == 0
    topic.set_state(State.STALE)
    await trio.sleep(3)
    topic.set_state(State.SYNCING)
    await trio.sleep(4)
    assert (await samples(web))["candlesync_series_not_live_seconds", ("1m", "BTCUSDT")] == pytest.approx(7)
    topic.set_state(State.LIVE)
    found = await samples(web)
    assert found["candlesync_not_live_seconds_count", ()] == 1, "the first time is a start"
    assert found["candlesync_not_live_seconds_sum", ()] == pytest.approx(7)


async def test_why_clients_were_evicted() -> None:
    web = Web()
    web.topic()
    web.connections.cut_off = lambda: 3
    async with web.socket("/ws/candles/BTCUSDT") as socket:
        await socket.send(b"binary")
        await socket.closed.wait()
    async with web.socket("/ws/candles/BTCUSDT?replay=0") as socket:
        await socket.accepted.wait()
        web.stopping.set()
        await socket.closed.wait()
    found = await samples(web)
    evictions = {key[1][0]: value for key, value in found.items() if key[0] == "candlesync_evictions_total"}
    assert evictions == {
        "too_slow": 0,
        "cut_off": 3,
        "too_old": 0,
        "too_many": 0,
        "binary_message": 1,
        "going_down": 1,
    }


async def test_a_series_without_candles_has_no_newest() -> None:
    web = Web()
    web.hub.open(BTC)
    assert ("candlesync_newest_open_time_seconds", ("1m", "BTCUSDT")) not in await samples(web)


async def test_sockets_subscribers_and_messages_do_not_go_down_with_the_sockets_that_had_them() -> None:
    web = Web()
    web.topic()
    async with web.socket("/ws/candles/BTCUSDT?replay=3") as one, web.socket("/ws/candles") as many:
        await one.take(3)
        await many.send({"op": "subscribe", "symbol": "BTCUSDT", "replay": 2})
        await many.take(4)
        found = await samples(web)
        assert found["candlesync_sockets", ()] == 2
        assert found["candlesync_subscribers", ()] == 2
        assert found["candlesync_messages_sent_total", ()] == 7
    found = await samples(web)
    assert found["candlesync_sockets", ()] == 0
    assert found["candlesync_subscribers", ()] == 0
    assert found["candlesync_messages_sent_total", ()] == 7


async def test_what_was_asked_of_binance() -> None:
    web = Web()
    await web.get("/symbols")
    found = await samples(web)
    assert found["candlesync_rest_requests_total", ()] == 1
    assert found["candlesync_rest_weight_limit", ()] > 0
    failing = Web(binance_status=500)
    await failing.get("/symbols")
    assert (await samples(failing))["candlesync_rest_failures_total", ("server",)] == 1


async def test_what_clients_were_refused_by_reason() -> None:
    web = Web(max_connections=1, access=AccessSettings(tokens=(Token("sesame"),), origins=("https://a.example",)))
    reasons = {
        "connections",
        "connections_per_address",
        "request_rate",
        "frame_rate",
        "origin",
        "token",
        "message_rate",
        "new_series",
        "symbols",
    }
    for _ in range(3):
        await web.asked("/symbols")
    await web.asked("/symbols", ("Origin", "https://b.example"))
    for _ in range(2):
        web.connections.enter("192.0.2.1")
    answer = await web.asked("/metrics?token=sesame")
    found = {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.name == "candlesync_refused_total"
    }
    assert found == {(reason,): 0 for reason in reasons} | {("token",): 3, ("origin",): 1, ("connections",): 1}
    assert b"candlesync_connections 1.0" in answer.body
    assert b"candlesync_connections_limit 1.0" in answer.body
