"""The sync against what Binance really sent and stored."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from pathlib import Path

import pytest

from candlesync.binance.parse import Ignored, Kline, parse_frame, parse_rows
from candlesync.core.candle import Candle, Series
from candlesync.core.gap import gap_between
from candlesync.core.interval import Interval
from candlesync.core.replica import Commit
from candlesync.core.sync import Ask, Idle, Rules, State, Wait
from tests.builders import answer, candle, candles_of, shared_data
from tests.core.session import Session


@pytest.fixture
def data() -> Path:
    return shared_data()


def rows_of(lines: Iterable[Sequence[str]]) -> list[Candle]:
    """Candles of rows of twelve texts, read by our own parser; all of them closed."""
    rows = [[int(row[0]), *row[1:6], int(row[6]), row[7], int(row[8]), *row[9:12]] for row in lines if row[0].isdigit()]
    parsed = parse_rows(json.dumps([*rows, [10**13, *rows[-1][1:6], 10**13, *rows[-1][7:]]]).encode())
    return list(parsed[:-1])


def archive(data: Path, symbol: str, interval: str, *days: str) -> list[Candle]:
    candles = []
    for day in days:
        with zipfile.ZipFile(data / "archive" / f"{symbol}-{interval}-{day}.zip") as archived:
            text = archived.read(archived.namelist()[0]).decode()
        candles += rows_of(csv.reader(io.StringIO(text)))
    return candles


def at(text: str) -> int:
    """Milliseconds of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class Archive:
    """REST over recorded candles, as of one of them."""

    def __init__(self, candles: Sequence[Candle], rules: Rules) -> None:
        self._candles = candles
        self._rules = rules
        self.now = candles[-1].open_time

    def rows(self, ask: Ask) -> tuple[Candle, ...]:
        known = self._candles[: bisect_left(self._candles, self.now + 1, key=attrgetter("open_time"))]
        if ask.start is None:
            return answer(known[-self._rules.history :])
        first = bisect_left(known, ask.start, key=attrgetter("open_time"))
        return answer(known[first : first + self._rules.page])

    def settle(self, session: Session) -> None:
        """Let the sync do all that it wants to do."""
        for _ in range(50):
            match session.sync.decide():
                case Ask() as ask:
                    session.sync.answered(ask, self.rows(ask))
                case Commit() as commit:
                    session.replica.apply(commit)
                    session.sync.committed(commit)
                case Wait() as wait:
                    session.sync.waited(wait)
                case Idle():
                    return
        raise AssertionError("it does not come to rest")


def frames_of(data: Path, symbol: str) -> list[Candle]:
    """The recorded 1m frames of a symbol."""
    if symbol == "BTCUSDT 2021-11":
        lines = (data / "frames" / "btcusdt_kline_1m_20211113.jsonl").read_text().splitlines()
    else:
        with gzip.open(data / "frames" / "BINANCE-ee25be.0__2021-04-04.kline-aggTrade.txt.gz", "rt") as recorded:
            lines = [line.partition(": ")[2] for line in recorded if ": {" in line]
    frames = []
    for line in lines:
        match parse_frame(line):
            case Kline(series, candle) if symbol.startswith(series.symbol):
                frames.append(candle)
            case Kline() | Ignored():
                pass
            case other:
                raise AssertionError(other)
    return frames


@pytest.mark.parametrize(
    ("symbol", "frames", "closes"),
    [("BTCUSDT 2021-11", 151, 5), ("BTCUSDT", None, None), ("ETHUSDT", None, None), ("DOTUSDT", None, None)],
)
@pytest.mark.parametrize("drop_closes", [False, True], ids=["all frames", "closes lost"])
def test_recorded_frames(data: Path, symbol: str, frames: int | None, closes: int | None, drop_closes: bool) -> None:
    recorded = frames_of(data, symbol)
    finals = {frame.open_time: frame for frame in recorded if frame.closed}
    assert frames in (None, len(recorded))
    assert closes in (None, len(finals))
    assert finals
    last = recorded[-1]
    truth = [*finals.values(), *([last] if not last.closed else [])]
    rules = Rules()
    rest = Archive(truth, rules)
    session = Session(recorded[0], rules=rules)
    for frame in recorded[1:]:
        rest.now = frame.open_time
        if not (drop_closes and frame.closed):
            session.shows(frame)
        rest.settle(session)
        assert session.state() is State.LIVE
    assert candles_of(session.replica)[:-1] == truth[:-1], "digit for digit"
    assert session.sync.statistics.gaps == (len(truth) - 1 if drop_closes else 0)


OUTAGE = ("2023-03-23", "2023-03-24", "2023-03-25")


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
@pytest.mark.parametrize(("interval", "missing"), [("1m", 80), ("15m", 5), ("1h", 1)])
def test_the_outage_of_2023_03_24(data: Path, symbol: str, interval: str, missing: int) -> None:
    """12:40 to 13:59 do not exist. The connection is up all the time; the candle before closes early."""
    candles = archive(data, symbol, interval, *OUTAGE)
    rules = Rules()
    rest = Archive(candles, rules)
    first = next(number for number, made in enumerate(candles) if made.open_time >= at("2023-03-24 12:00"))
    session = Session(*candles[max(0, first - 100) : first], rules=rules, series=Series(symbol, Interval(interval)))
    for made in candles[first : first + 200]:
        rest.now = made.open_time
        session.shows(*answer([made]))
        rest.settle(session)
        assert session.state() is State.LIVE
        session.shows(made)
        rest.settle(session)
    series = candles_of(session.replica)
    fills = [made for made in series if made.filled]
    assert [made for made in series if not made.filled] == candles[max(0, first - 100) : first + 200]
    assert len(fills) == missing == session.sync.statistics.filled
    before = next(made for made in reversed(series) if made.open_time < fills[0].open_time)
    assert {fill.close for fill in fills} == {before.close}
    if interval == "1m":
        assert before.open_time == at("2023-03-24 12:39")
        assert before.close_time < fills[0].open_time - 1


def test_a_series_that_begins_after_the_outage_has_it_filled(data: Path) -> None:
    candles = archive(data, "BTCUSDT", "1m", *OUTAGE)
    rules = Rules()
    rest = Archive(candles, rules)
    rest.now = at("2023-03-24 20:00")
    session = Session(rules=rules)
    session.sync.connected()
    rest.settle(session)
    series = candles_of(session.replica)
    assert len(series) == 1000, "the newest rows reach farther back than the history, fills and all"
    assert sum(made.filled for made in series) == 80
    assert session.state() is State.LIVE


@pytest.mark.parametrize(("back", "begun"), [("2023-03-24 20:00", 0), ("2023-03-25 06:00", 0), ("2023-03-25 06:01", 1)])
def test_a_feed_that_comes_back_after_the_outage(data: Path, back: str, begun: int) -> None:
    """Lost at noon before it. As long as the newest 1000 rows reach back, the hole is filled; then it begins again."""
    candles = archive(data, "BTCUSDT", "1m", *OUTAGE)
    rules = Rules()
    rest = Archive(candles, rules)
    session = Session(*(made for made in candles if made.open_time <= at("2023-03-24 12:00")), rules=rules)
    session.sync.lost()
    rest.now = at(back)
    session.sync.connected()
    rest.settle(session)
    series = candles_of(session.replica)
    true = {made.open_time: made for made in candles}
    assert session.state() is State.LIVE
    assert session.sync.statistics.begun == begun
    assert len(series) == 1000
    assert series[-1].open_time == at(back)
    assert all(made == true[made.open_time] for made in series[:-1] if not made.filled)
    assert {made.open_time for made in series if made.filled} == {
        made.open_time for made in series if made.open_time not in true
    }


def hours_of_2018(data: Path) -> list[Candle]:
    return hours(data, "2018-01-20", "2018-02-14")


def hours(data: Path, since: str, until: str) -> list[Candle]:
    def milliseconds(text: str) -> str:
        moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
        return str((moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))

    with gzip.open(data / "rest" / "BTCUSDT-1h_2017-08-17_2020-12-08.csv.gz", "rt") as recorded:
        lines = [row for row in csv.reader(recorded) if since <= row[0] < until]
    # Whoever recorded it has some hours of December 2020 twice.
    unique = {row[0]: row for row in lines}.values()
    return rows_of([milliseconds(row[0]), *row[1:]] for row in unique)


def test_the_hours_of_2018_that_are_off_the_grid(data: Path) -> None:
    """They cannot stand in a continuous series: they are counted, and flat hours are seen in their place."""
    candles = hours_of_2018(data)
    odd = [made for made in candles if not Interval.H1.is_open_time(made.open_time)]
    assert len(odd) == 43
    assert odd[0].open_time == at("2018-02-09 09:28:14.789")
    even = [made for made in candles if made not in odd]
    rules = Rules(history=200, page=200)
    rest = Archive(candles, rules)
    session = Session(
        *(made for made in even if made.open_time < at("2018-02-08")),
        rules=rules,
        series=Series("BTCUSDT", Interval.H1),
    )
    for made in candles:
        if made.open_time >= at("2018-02-08"):
            rest.now = made.open_time
            session.shows(*answer([made]))
            rest.settle(session)
            session.shows(made)
            rest.settle(session)
            assert session.state() is State.LIVE
    series = candles_of(session.replica)
    assert [made for made in series if not made.filled] == even[-sum(not made.filled for made in series) :]
    kinds = Counter(made.filled for made in series if made.open_time >= at("2018-02-08"))
    times = [made.open_time for made in even if made.open_time >= at("2018-02-08")]
    hours = Interval.H1.steps(times[0], times[-1])
    assert hours is not None
    assert kinds[False] == len(times)
    assert kinds[True] == hours + 1 - len(times) > 40
    # Each odd hour comes as an update and as a close.
    assert session.sync.statistics.dropped_frames == 2 * len(odd)


# --- every hole that was recorded


class Recording:
    """The candles of one series as they were recorded, and the holes in them: the candle before each, by number."""

    def __init__(self, interval: str, candles: list[Candle]) -> None:
        self.series = Series("BTCUSDT", Interval(interval))
        self.candles = [made for made in candles if self.series.interval.is_open_time(made.open_time)]
        following = self.series.interval.next
        self.holes = [
            number
            for number, (one, other) in enumerate(pairwise(self.candles))
            if other.open_time != following(one.open_time)
        ]

    def missing(self, hole: int) -> list[int]:
        """The open times that a hole lacks."""
        gap = gap_between(self.series.interval, self.candles[hole].open_time, self.candles[hole + 1].open_time)
        assert gap is not None
        return list(gap.open_times(self.series.interval))


def recorded_hours_of_2020(data: Path) -> list[Candle]:
    """Two answers of REST, one after the other, of 1000 and 468 hours."""
    with gzip.open(data / "rest" / "klines_routes.json.gz") as recorded:
        answers = json.load(recorded)
    pages = [rows for route, rows in answers.items() if "interval=1h" in route and len(rows) in (1000, 468)]
    return rows_of([[str(field) for field in row] for page in pages for row in page])


def recorded_minutes_of_2021(data: Path) -> list[Candle]:
    """Six columns of numbers; whatever else a candle says is made up, and does not matter here."""
    with gzip.open(data / "rest" / "BTC_USDT-1m_2021-04-20_2021-05-20.json.gz") as recorded:
        rows = json.load(recorded)
    return [
        candle(time, f"{close:.8f}", open=f"{open_:.8f}", high=f"{high:.8f}", low=f"{low:.8f}")
        for time, open_, high, low, close, _ in rows
        if time < at("2021-04-26")
    ]


def hours_until_2020(data: Path) -> list[Candle]:
    return hours(data, "2017-08-17", "2020-12-09")


RECORDINGS: dict[str, tuple[str, Callable[[Path], list[Candle]], list[int]]] = {
    "hours of 2020": ("1h", recorded_hours_of_2020, [3]),
    "minutes of 2021": ("1m", recorded_minutes_of_2021, [284]),
    # The third is 2018-02-08 to 2018-02-11: an outage, and the hours off the grid.
    "hours from 2017 on": ("1h", hours_until_2020, [7, 1, 75, 10, 1, 7, 3, 7, 6, 10, 8, 2, 2, 1, 5, 1, 2, 3, 1]),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_hole_is_filled_while_the_feed_lives_and_all_else_is_as_recorded(data: Path, name: str) -> None:
    interval, read, lengths = RECORDINGS[name]
    recording = Recording(interval, read(data))
    assert [len(recording.missing(hole)) for hole in recording.holes] == lengths
    for hole in recording.holes:
        rules = Rules()
        rest = Archive(recording.candles, rules)
        first, end = max(0, hole - 20), hole + 20
        session = Session(*recording.candles[first:hole], rules=rules, series=recording.series)
        for made in recording.candles[hole:end]:
            rest.now = made.open_time
            session.shows(*answer([made]))
            rest.settle(session)
            assert session.state() is State.LIVE
            session.shows(made)
            rest.settle(session)
        check_filled(session, recording.candles[first:end])


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_recorded_hole_is_filled_when_the_feed_was_lost_over_it(data: Path, name: str) -> None:
    interval, read, _ = RECORDINGS[name]
    recording = Recording(interval, read(data))
    for hole in recording.holes:
        rules = Rules()
        rest = Archive(recording.candles, rules)
        first, end = max(0, hole - 20), hole + 20
        session = Session(*recording.candles[first : hole - 3], rules=rules, series=recording.series)
        session.sync.lost()
        rest.now = recording.candles[end].open_time
        session.sync.connected()
        rest.settle(session)
        assert session.state() is State.LIVE
        check_filled(session, [*recording.candles[first:end], *answer([recording.candles[end]])])


def check_filled(session: Session, true: Sequence[Candle]) -> None:
    """The series is as recorded, and flat in each hole at the close before it."""
    series = candles_of(session.replica)
    assert [made for made in series if not made.filled] == list(true)
    for before, made in pairwise(series):
        assert made.open_time == session.replica.series.interval.next(before.open_time)
        if made.filled:
            assert {made.open, made.high, made.low, made.close} == {before.close}
            assert made.trades == 0


def test_a_hole_longer_than_the_history_begins_the_series_again(data: Path) -> None:
    """284 minutes of 2021-04-25, and a history of 200."""
    recording = Recording("1m", recorded_minutes_of_2021(data))
    (hole,) = recording.holes
    rules = Rules(history=200, page=200)
    rest = Archive(recording.candles, rules)
    session = Session(*recording.candles[hole - 150 : hole + 1], rules=rules)
    for made in recording.candles[hole + 1 : hole + 300]:
        rest.now = made.open_time
        session.shows(*answer([made]))
        rest.settle(session)
        assert session.state() is State.LIVE
        session.shows(made)
        rest.settle(session)
    assert session.sync.statistics.begun == 1
    assert candles_of(session.replica) == recording.candles[hole + 100 : hole + 300], "nothing is filled"


def test_what_was_filled_before_a_hole_and_appears_later_changes_the_fills_of_the_hole(data: Path) -> None:
    """The last two hours before the hole of 2020-06-28 and the first one after it come a day late."""
    recording = Recording("1h", recorded_hours_of_2020(data))
    (hole,) = recording.holes
    late = recording.candles[hole - 1 : hole + 2]
    rules = Rules()
    rest = Archive([made for made in recording.candles if made not in late], rules)
    session = Session(*recording.candles[hole - 20 : hole - 1], rules=rules, series=recording.series)
    for made in recording.candles[hole + 2 : hole + 26]:
        rest.now = made.open_time
        session.shows(made)
        rest.settle(session)
    fills = [made for made in candles_of(session.replica) if made.filled]
    assert len(fills) == 6
    assert {fill.close for fill in fills} == {recording.candles[hole - 2].close}
    now = session.replica.tail
    assert now is not None
    session.sync.inspected(answer([*recording.candles[hole - 3 : hole + 26]]))
    changed = session.commits()
    assert len(changed) == 6, "each fill: three of them are hours now, three are flat at another close"
    check_filled(session, recording.candles[hole - 20 : hole + 26])
    assert [made.open_time for made in changed if made.filled] == recording.missing(hole)
    assert {made.close for made in changed if made.filled} == {recording.candles[hole].close}


def test_a_feed_that_was_lost_over_the_odd_hours(data: Path) -> None:
    candles = hours_of_2018(data)
    rules = Rules(history=200, page=200)
    rest = Archive(candles, rules)
    before = [made for made in candles if made.open_time <= at("2018-02-07")]
    session = Session(*before, rules=rules, series=Series("BTCUSDT", Interval.H1))
    session.sync.lost()
    rest.now = at("2018-02-12 03:00")
    session.sync.connected()
    rest.settle(session)
    assert session.state() is State.LIVE
    series = candles_of(session.replica)
    true = {made.open_time: made for made in candles}
    assert all(true.get(made.open_time) == made for made in series[:-1] if not made.filled)
    assert all(made.filled is (made.open_time not in true) for made in series)
    assert session.sync.statistics.off_grid_rows == 2 * 43, "in the answer before the pause and in the one after it"


def test_the_archive_is_whole_where_the_sync_begins(data: Path) -> None:
    """Three days of minutes without a hole are held as they are, across midnight."""
    candles = archive(data, "BTCUSDT", "1m", "2024-06-01", "2024-06-02", "2024-06-03")
    rules = Rules()
    rest = Archive(candles, rules)
    session = Session(rules=rules)
    for step in range(0, 4320, 500):
        rest.now = candles[step].open_time
        session.sync.connected()
        rest.settle(session)
        assert session.state() is State.LIVE
        assert candles_of(session.replica)[:-1] == candles[max(0, step - 999) : step]
