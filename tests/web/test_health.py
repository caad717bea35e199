"""``/symbols``, ``/health`` and ``/ready``."""

from __future__ import annotations

import json

import trio
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio
from trio.testing import MockClock

from candlesync.core.candle import Series
from candlesync.core.interval import INTERVALS, Interval
from candlesync.core.sync import State
from candlesync.web.health import health_routes
from tests.builders import BTC
from tests.web.builders import Web, symbols_over

ETH = Series("ETHUSDT", Interval.M1)


async def test_health_says_that_the_process_answers_whatever_else_is_wrong() -> None:
    web = Web(pinned=[BTC], binance_status=500)
    web.stopping.set()
    answer = await web.get("/health")
    assert (answer.status, answer.json) == (200, {"status": "alive"})


async def test_not_ready_before_the_first_sync_and_which() -> None:
    web = Web(pinned=[BTC, ETH])
    topic = web.hub.open(BTC)
    answer = await web.get("/ready")
    assert answer.status == 503
    assert answer.json["status"] == "not ready"
    assert answer.json["series"] == {"BTCUSDT 1m": "not synced yet", "ETHUSDT 1m": "not synced yet"}
    topic.failure = "Binance answered 451"
    assert (await web.get("/ready")).json["series"]["BTCUSDT 1m"] == "Binance answered 451"


async def test_candles_that_rest_has_not_confirmed_yet_are_not_ready() -> None:
    web = Web(pinned=[BTC])
    web.topic(state=State.SYNCING)
    assert (await web.get("/ready")).status == 503


async def test_ready_once_every_pinned_series_is_live() -> None:
    web = Web(pinned=[BTC, ETH])
    web.topic()
    assert (await web.get("/ready")).json["series"] == {"ETHUSDT 1m": "not synced yet"}
    web.topic(series=ETH)
    answer = await web.get("/ready")
    assert (answer.status, answer.json) == (200, {"status": "ready", "series": {}})


async def test_without_pinned_series_it_is_ready_at_once() -> None:
    web = Web()
    web.topic(state=State.STALE)
    assert (await web.get("/ready")).status == 200


async def test_not_ready_when_a_pinned_series_has_not_been_live_for_30_seconds_and_which(
    autojump_clock: MockClock,
) -> None:
    web = Web(pinned=[BTC, ETH])
    web.topic()
    topic = web.topic(series=ETH)
    topic.set_state(State.STALE)
    await trio.sleep(20)
    topic.set_state(State.SYNCING)  # not live either: the time goes on
    await trio.sleep(9)
    assert (await web.get("/ready")).status == 200
    await trio.sleep(1)
    answer = await web.get("/ready")
    assert answer.status == 503
    assert list(answer.json["series"]) == ["ETHUSDT 1m"]
    assert "30 s" in answer.json["series"]["ETHUSDT 1m"]
    topic.set_state(State.LIVE)
    assert (await web.get("/ready")).status == 200
    topic.set_state(State.STALE)
    assert (await web.get("/ready")).status == 200, "and the 30 seconds begin anew"


async def test_not_ready_when_stopping() -> None:
    web = Web(pinned=[BTC])
    web.topic()
    web.stopping.set()
    answer = await web.get("/ready")
    assert (answer.status, answer.json["status"]) == (503, "stopping")


async def test_nothing_of_it_is_kept_by_a_cache() -> None:
    web = Web()
    for path in ("/health", "/ready", "/symbols"):
        assert (await web.get(path)).headers["Cache-Control"] == "no-cache"


async def test_the_symbols_that_binance_lists_and_the_intervals() -> None:
    answer = await Web(listed=["BTCUSDT", "ETHBTC"]).get("/symbols")
    assert answer.status == 200
    assert answer.json == {
        "intervals": [str(interval) for interval in INTERVALS],
        "symbols": [
            {"symbol": "BTCUSDT", "status": "TRADING", "base": "BTC", "quote": "USDT"},
            {"symbol": "ETHBTC", "status": "TRADING", "base": "ETH", "quote": "BTC"},
        ],
    }


async def test_the_symbols_when_binance_cannot_be_asked() -> None:
    answer = await Web(binance_status=500).get("/symbols")
    assert (answer.status, answer.code) == (503, "upstream_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_why_a_series_has_not_been_live(autojump_clock: MockClock) -> None:
    web = Web(pinned=[BTC])
    topic = web.topic()
    topic.set_state(State.SYNCING)
    topic.failure = "Binance allows no request for another 90.0 s"
    await trio.sleep(31)
    reason = (await web.get("/ready")).json["series"]["BTCUSDT 1m"]
    assert reason == "syncing, not live for 31 s: Binance allows no request for another 90.0 s"


async def test_health_and_readiness_are_fast_while_all_clients_are_busy() -> None:
    """They wait for nothing: not for a place, not for a lock of a series, not for Binance."""
    web = Web(pinned=[BTC], binance_status=500)
    topic = web.topic()
    async with topic.lock, trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(web.get, f"/candles/BTCUSDT/1m?limit={number + 1}")
        with trio.fail_after(2):
            assert (await web.get("/health")).status == 200
            assert (await web.get("/ready")).status == 200


class CutOff:
    """A node that cannot ask its store."""

    name = "blue"
    last_error = "127.0.0.1:6379 refused the connection"

    def owners(self) -> dict[str, str]:
        return {}


async def test_a_node_says_why_its_store_cannot_be_asked() -> None:
    web = Web(pinned=[BTC])
    web.topic()
    app = QuartTrio(__name__)
    symbols, _ = symbols_over([])
    app.register_blueprint(health_routes(web.supervisor, symbols, CollectorRegistry(), web.stopping, nodes=CutOff()))
    answer = await app.test_client().get("/ready")
    assert answer.status_code == 200, "its series is live until it has not been for a while"
    assert json.loads(await answer.get_data()) == {
        "status": "ready",
        "series": {},
        "node": "blue",
        "owners": {},
        "store": "127.0.0.1:6379 refused the connection",
    }
