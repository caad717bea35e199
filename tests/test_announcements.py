"""What the nodes of a store announce reaches whom it concerns, and nobody else."""

from __future__ import annotations

import math
from contextlib import ExitStack

import trio
from trio.testing import MockClock

from candlesync.announcements import MOST, Announcements, Heard
from candlesync.core.candle import Series
from candlesync.core.interval import Interval
from candlesync.core.position import Position
from candlesync.core.replica import Commit
from candlesync.core.report import Release, Report, SeriesReport
from candlesync.core.sync import State
from tests.builders import BTC, candle

BTC_5M = Series("BTCUSDT", Interval.M5)
ETH = Series("ETHUSDT", Interval.M1)
COMMIT = Commit("life0", 7, (candle(),))
LIVE = SeriesReport(State.LIVE, Position("life0", 7))
NOT_HEARD_YET = ("deaf", "the store's announcements are not heard yet")


class Log:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def listening(self) -> None:
        self.told.append(("listening",))

    def deaf(self, reason: str) -> None:
        self.told.append(("deaf", reason))

    def committed(self, commit: Commit) -> None:
        self.told.append(("committed", commit))

    def moved(self, position: Position) -> None:
        self.told.append(("moved", position))

    def reported(self, report: SeriesReport | None, at: float) -> None:
        self.told.append(("reported", report, at))


class OwnershipLog:
    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def reported(self, symbol: str, report: Report) -> None:
        self.told.append(("reported", symbol, report))

    def released(self, symbol: str, release: Release) -> None:
        self.told.append(("released", symbol, release))

    def assembled(self) -> None:
        self.told.append(("assembled",))


def report(owner: str = "other", **series: SeriesReport) -> Report:
    return Report(owner, {Interval(name.removeprefix("of_")): told for name, told in series.items()})


async def test_what_is_announced_of_a_series_is_told_to_who_follows_it() -> None:
    announcements, logs = Announcements("node"), {series: Log() for series in (BTC, BTC_5M, ETH)}
    with ExitStack() as stack:
        for series, log in logs.items():
            stack.enter_context(announcements.following(series, log))
            assert log.told == [NOT_HEARD_YET]
            log.told.clear()
        announcements.committed(BTC, COMMIT)
        announcements.moved(BTC_5M, Position("life0", 8))
        announcements.committed(Series("LTCUSDT", Interval.M1), COMMIT)
        announcements.moved(Series("ETHUSDT", Interval.M5), Position("life0", 8))
        assert logs[BTC].told == [("committed", COMMIT)]
        assert logs[BTC_5M].told == [("moved", Position("life0", 8))]
        assert logs[ETH].told == []
    announcements.committed(BTC, COMMIT)
    announcements.listening()
    assert len(logs[BTC].told) == 1, "nobody follows any more"


async def test_all_are_told_whether_anything_is_heard_and_newcomers_too() -> None:
    announcements, first, second = Announcements("node"), Log(), Log()
    with announcements.following(BTC, first):
        announcements.listening()
        with announcements.following(ETH, second):
            announcements.deaf("the connection was lost")
    assert first.told == [NOT_HEARD_YET, ("listening",), ("deaf", "the connection was lost")]
    assert second.told == [("listening",), ("deaf", "the connection was lost")]
    with announcements.following(BTC, third := Log()):
        assert third.told == [("deaf", "the connection was lost")]


async def test_a_report_is_told_to_each_series_of_the_symbol(autojump_clock: MockClock) -> None:
    announcements, minute, five, other = Announcements("node"), Log(), Log(), Log()
    with (
        announcements.following(BTC, minute),
        announcements.following(BTC_5M, five),
        announcements.following(ETH, other),
    ):
        await trio.sleep(5)
        announcements.reported("BTCUSDT", report(of_1m=LIVE))
        assert minute.told[1:] == [("reported", LIVE, 5.0)]
        assert five.told[1:] == [("reported", None, 5.0)], "the owner does not have it"
        assert other.told[1:] == []


async def test_who_begins_to_follow_knows_the_last_report_and_how_old_it_is(autojump_clock: MockClock) -> None:
    announcements = Announcements("node")
    await trio.sleep(5)
    announcements.reported("BTCUSDT", report(of_1m=LIVE))
    await trio.sleep(5)
    with announcements.following(BTC, log := Log()):
        assert log.told[1:] == [("reported", LIVE, 5.0)]
    assert announcements.reports == {"BTCUSDT": Heard(report(of_1m=LIVE), 5.0)}


async def test_what_the_node_itself_reported_is_no_news_of_another_owner() -> None:
    announcements = Announcements("node")
    with announcements.following(BTC, log := Log()):
        announcements.reported("BTCUSDT", report("node", of_1m=LIVE))
        assert log.told == [NOT_HEARD_YET]
    with announcements.following(BTC, later := Log()):
        assert later.told == [NOT_HEARD_YET]
    assert announcements.reports["BTCUSDT"].report.owner == "node", "but it says who owns what"


async def test_an_owner_that_gave_up_is_no_owner_any_more(autojump_clock: MockClock) -> None:
    announcements = Announcements("node")
    with announcements.following(BTC, log := Log()):
        announcements.reported("BTCUSDT", report("other", of_1m=LIVE))
        announcements.released("BTCUSDT", Release("another"))
        assert len(log.told) == 2, "it was not that one's to give up"
        announcements.released("BTCUSDT", Release("other"))
        assert log.told[2:] == [("reported", None, -math.inf)]
    assert announcements.reports == {}


async def test_the_ownership_is_told_who_owns_what_and_who_is_there() -> None:
    announcements, log = Announcements("node"), OwnershipLog()
    announcements.assembled()
    announcements.reported("BTCUSDT", report())
    announcements.released("BTCUSDT", Release("other"))
    announcements.ownership = log
    announcements.assembled()
    announcements.reported("BTCUSDT", report("node"))
    announcements.released("BTCUSDT", Release("other", "node"))
    assert log.told == [
        ("assembled",),
        ("reported", "BTCUSDT", report("node")),
        ("released", "BTCUSDT", Release("other", "node")),
    ]


async def test_whoever_owns_a_series_is_called_each_time_that_everything_is_heard_again() -> None:
    announcements, calls = Announcements("node"), list[str]()
    with announcements.each_time_listening(lambda: calls.append("call")):
        announcements.listening()
        announcements.deaf("lost")
        announcements.listening()
    announcements.listening()
    assert calls == ["call", "call"]


async def test_another_may_follow_before_the_first_has_ended() -> None:
    announcements, first, second = Announcements("node"), Log(), Log()
    one = announcements.following(BTC, first)
    with one:
        stack = ExitStack()
        stack.enter_context(announcements.following(BTC, second))
    announcements.committed(BTC, COMMIT)
    assert second.told[1:] == [("committed", COMMIT)]
    assert first.told[1:] == []
    stack.close()
    announcements.committed(BTC, COMMIT)
    assert len(second.told) == 2
    assert announcements._listeners == {}


async def test_reports_of_more_symbols_than_there_are_do_not_fill_the_memory() -> None:
    announcements = Announcements("me")
    announcements.reported("BTCUSDT", report())
    for number in range(MOST + 10):
        announcements.reported(f"X{number}", report())
        if number % 100 == 0:
            announcements.reported("BTCUSDT", report())
    assert len(announcements.reports) == MOST
    assert "BTCUSDT" in announcements.reports, "of which something is heard now and then"
